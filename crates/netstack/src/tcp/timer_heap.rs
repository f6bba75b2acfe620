use crate::Instant;

/// The deadlines of many sockets: a binary heap that knows where each socket is in it, so that a
/// deadline can be moved or removed. A socket is its index; it has one deadline at most.
#[derive(Debug, Default)]
pub(crate) struct TimerHeap {
    heap: Vec<(Instant, u32)>,
    /// Where each socket is in `heap`; [`ABSENT`] if it has no deadline.
    positions: Vec<usize>,
}

const ABSENT: usize = usize::MAX;

impl TimerHeap {
    /// The earliest deadline, and whose it is.
    pub(crate) fn first(&self) -> Option<(Instant, u32)> {
        self.heap.first().copied()
    }

    /// Makes sure that `socket` is called at `deadline` or earlier. A deadline that moves further
    /// away, as retransmission's does with every acknowledgment, costs nothing: the socket is
    /// called too early once, and asked again.
    pub(crate) fn arm(&mut self, socket: u32, deadline: Instant) {
        match self.position(socket) {
            Some(at) if self.heap[at].0 <= deadline => {}
            Some(at) => {
                self.heap[at].0 = deadline;
                self.sift_up(at);
            }
            None => {
                let index = socket as usize;
                if self.positions.len() <= index {
                    self.positions.resize(index + 1, ABSENT);
                }
                let at = self.heap.len();
                self.heap.push((deadline, socket));
                self.positions[index] = at;
                self.sift_up(at);
            }
        }
    }

    /// Forgets the deadline of `socket`.
    pub(crate) fn disarm(&mut self, socket: u32) {
        let Some(at) = self.position(socket) else { return };
        self.positions[socket as usize] = ABSENT;
        self.heap.swap_remove(at);
        if at < self.heap.len() {
            self.positions[self.heap[at].1 as usize] = at;
            let at = self.sift_up(at);
            self.sift_down(at);
        }
    }

    fn position(&self, socket: u32) -> Option<usize> {
        self.positions.get(socket as usize).copied().filter(|&at| at != ABSENT)
    }

    fn swap(&mut self, a: usize, b: usize) {
        self.heap.swap(a, b);
        for at in [a, b] {
            self.positions[self.heap[at].1 as usize] = at;
        }
    }

    fn sift_up(&mut self, mut at: usize) -> usize {
        while at > 0 {
            let parent = (at - 1) / 2;
            if self.heap[parent].0 <= self.heap[at].0 {
                break;
            }
            self.swap(at, parent);
            at = parent;
        }
        at
    }

    fn sift_down(&mut self, mut at: usize) {
        loop {
            let children = 2 * at + 1..(2 * at + 3).min(self.heap.len());
            let Some(child) = children.min_by_key(|&child| self.heap[child].0) else { break };
            if self.heap[at].0 <= self.heap[child].0 {
                break;
            }
            self.swap(at, child);
            at = child;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn agrees_with_a_map(steps in proptest::collection::vec((0..20_u32, 0..100_u64, 0..3_u8), 1..200)) {
            let mut heap = TimerHeap::default();
            let mut model = BTreeMap::new();
            for (socket, deadline, step) in steps {
                let deadline = Instant::from_nanos(deadline);
                if step == 0 {
                    heap.disarm(socket);
                    model.remove(&socket);
                } else {
                    heap.arm(socket, deadline);
                    let entry = model.entry(socket).or_insert(deadline);
                    *entry = deadline.min(*entry);
                }
                prop_assert_eq!(heap.first().map(|first| first.0), model.values().min().copied());
            }
            let mut order = Vec::new();
            while let Some((deadline, socket)) = heap.first() {
                prop_assert_eq!(model.remove(&socket), Some(deadline));
                order.push(deadline);
                heap.disarm(socket);
            }
            prop_assert!(order.is_sorted() && model.is_empty());
        }
    }
}
