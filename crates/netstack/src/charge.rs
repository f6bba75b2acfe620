/// What bytes that were taken hold of their socket's receive buffer, until they are given back
/// ([`Stack::release`](crate::Stack::release)). It is given back once: there is no copy of it.
#[derive(Debug, PartialEq, Eq)]
pub struct Charge {
    /// The truesize of the whole frame.
    pub(crate) bytes: usize,
    /// The place among the [`CutFrames`], plus one; 0: the frame was taken in one piece.
    frame: u32,
}

impl Charge {
    /// Of a frame that is in one piece.
    pub(crate) const fn whole(bytes: usize) -> Self {
        Self { bytes, frame: 0 }
    }
}

/// Frames that are taken in pieces: of each, how many pieces are left, that in the queue included. A
/// frame is one piece of memory, which is held until the last of them is given back, in any order.
#[derive(Debug)]
pub(crate) struct CutFrames {
    pieces: Vec<u32>,
    free: Vec<u32>,
}

impl CutFrames {
    pub(crate) const fn new() -> Self {
        Self { pieces: Vec::new(), free: Vec::new() }
    }

    /// Cuts a piece off a frame whose charge is `rest`: the charge of the piece.
    pub(crate) fn cut(&mut self, rest: &mut Charge) -> Charge {
        if rest.frame == 0 {
            let place = self.free.pop().unwrap_or_else(|| {
                self.pieces.push(0);
                u32::try_from(self.pieces.len() - 1).expect("fewer than 2^32 frames are out")
            });
            self.pieces[place as usize] = 1;
            rest.frame = place + 1;
        }
        self.pieces[rest.frame as usize - 1] += 1;
        Charge { ..*rest }
    }

    /// The bytes that are free now that a piece has been given back: those of its frame, if it was the
    /// last.
    pub(crate) fn give_back(&mut self, Charge { bytes, frame }: Charge) -> usize {
        let Some(place) = frame.checked_sub(1) else { return bytes };
        let Some(pieces) = self.pieces.get_mut(place as usize) else { return 0 };
        *pieces = pieces.saturating_sub(1);
        if *pieces > 0 {
            return 0;
        }
        self.free.push(place);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_given_back_with_the_last_of_its_pieces_whichever_that_is() {
        let mut frames = CutFrames::new();
        assert_eq!(frames.give_back(Charge::whole(5)), 5);
        for last in 0..3 {
            let (mut rest, mut other) = (Charge::whole(2048), Charge::whole(100));
            let mut pieces = vec![frames.cut(&mut rest)];
            let of_other = frames.cut(&mut other);
            pieces.push(frames.cut(&mut rest));
            pieces.push(rest);
            let last = pieces.remove(last);
            for piece in pieces {
                assert_eq!(frames.give_back(piece), 0);
            }
            assert_eq!(frames.give_back(last), 2048);
            assert_eq!((frames.give_back(other), frames.give_back(of_other)), (0, 100));
        }
        assert_eq!(frames.pieces.len(), 2, "places are used again");
    }
}
