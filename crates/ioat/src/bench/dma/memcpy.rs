use super::{
    pairs::Pairs,
    pass::{PassError, Subject},
};

/// What the caller could do instead of using an engine: copy by itself, without any queue.
pub(super) struct Memcpy {
    pairs: Pairs,
    /// The pairs copied since the last poll.
    ended: Vec<usize>,
}

impl Memcpy {
    pub(super) fn new(pairs: Pairs, depth: usize) -> Self {
        Self { pairs, ended: Vec::with_capacity(depth) }
    }
}

impl Subject for Memcpy {
    #[inline]
    fn submit(&mut self, batch: usize, mut each: impl FnMut(usize)) -> Result<(), PassError> {
        for _ in 0..batch {
            let mut pair = self.pairs.take();
            each(pair.number);
            pair.target.copy_from_slice(&pair.source);
            self.ended.push(pair.number);
            self.pairs.give_back(pair);
        }
        Ok(())
    }

    #[inline]
    fn poll(&mut self, each: impl FnMut(usize)) -> usize {
        let ended = self.ended.len();
        self.ended.drain(..).for_each(each);
        ended
    }

    fn drain(&mut self) -> Result<usize, PassError> {
        Ok(self.poll(|_| ()))
    }

    fn pairs(&mut self) -> &mut Pairs {
        &mut self.pairs
    }
}
