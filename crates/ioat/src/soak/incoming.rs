//! A stream as its reader sees it: a header that tells what follows, and that.

use super::control::{Control, Course};
use crate::lab::Pattern;

/// Seed, length and course, 64 bits each.
pub(super) const HEADER_LEN: usize = 24;

/// What a stream carries behind its header.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    pub(super) seed: u64,
    pub(super) len: u64,
    pub(super) course: Course,
}

impl Header {
    pub(super) fn to_bytes(self) -> [u8; HEADER_LEN] {
        let course = match self.course {
            Course::Free => 0,
            Course::Holds => 1,
            Course::Last => 2_u64,
        };
        let mut bytes = [0; HEADER_LEN];
        for (place, word) in bytes.chunks_exact_mut(8).zip([self.seed, self.len, course]) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// `None` if it is none.
    fn from_bytes(bytes: [u8; HEADER_LEN]) -> Option<Self> {
        let (words, _) = bytes.as_chunks();
        let [seed, len, course] = [0, 1, 2].map(|at| u64::from_le_bytes(words[at]));
        let course = match course {
            0 => Course::Free,
            1 => Course::Holds,
            2 => Course::Last,
            _ => return None,
        };
        Some(Self { seed, len, course })
    }
}

/// A place in what a stream carries.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) pattern: Pattern,
    pub(super) offset: u64,
}

/// What was received of a stream. Errors are what went wrong, for people.
#[derive(Debug, Default)]
pub(super) struct Incoming {
    beginning: [u8; HEADER_LEN],
    begun: usize,
    header: Option<Header>,
    /// Bytes behind the header.
    received: u64,
}

impl Incoming {
    /// Checks what was received next. Returns where it is from, unless the header is part of it.
    pub(super) fn take(
        &mut self,
        control: &Control,
        mut bytes: &[u8],
    ) -> Result<Option<Place>, String> {
        control.count_received(bytes.len());
        let is_whole = self.header.is_some();
        if !is_whole {
            let (front, rest) = bytes.split_at(bytes.len().min(HEADER_LEN - self.begun));
            self.beginning[self.begun..][..front.len()].copy_from_slice(front);
            self.begun += front.len();
            bytes = rest;
            if self.begun == HEADER_LEN {
                let header = Header::from_bytes(self.beginning);
                if header.is_none() {
                    control.count_wrong(HEADER_LEN);
                    return Err(format!("a stream begins with {:x?}", self.beginning));
                }
                self.header = header;
            }
        }
        let Some(Header { seed, len, course }) = self.header else { return Ok(None) };
        let place = Place { pattern: Pattern::new(seed), offset: self.received };
        if let Some(at) = place.pattern.first_wrong(place.offset, bytes) {
            let mut right = vec![0; bytes.len()];
            place.pattern.fill(place.offset, &mut right);
            let wrong = right.iter().zip(bytes).filter(|(right, byte)| right != byte).count();
            control.count_wrong(wrong);
            return Err(format!("{wrong} wrong bytes, the first at {at} of stream {seed:#x}"));
        }
        self.received += bytes.len() as u64;
        if self.received > len {
            return Err(format!("stream {seed:#x} has more than its {len} bytes"));
        }
        if self.received == len && course != Course::Free && (!bytes.is_empty() || !is_whole) {
            control.count_settled();
        }
        Ok(is_whole.then_some(place))
    }

    /// Whether it stands still before its end; `false` as long as that is not known.
    pub(super) fn holds(&self) -> bool {
        self.header.is_some_and(|header| header.course != Course::Free)
    }

    /// How many bytes are still to come, as far as is known.
    pub(super) fn left(&self) -> usize {
        self.header.map_or(HEADER_LEN - self.begun, |header| (header.len - self.received) as usize)
    }

    /// The stream has ended. Returns whether another follows.
    pub(super) fn end(self) -> Result<bool, String> {
        match self.header {
            Some(header) if header.len == self.received => Ok(header.course != Course::Last),
            Some(Header { seed, len, .. }) => {
                Err(format!("stream {seed:#x} ended after {} of {len} bytes", self.received))
            }
            None => Err(format!("a stream ended after {} bytes", self.begun)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(len: usize, course: Course) -> Vec<u8> {
        let mut bytes = Header { seed: 7, len: len as u64, course }.to_bytes().to_vec();
        bytes.resize(HEADER_LEN + len, 0);
        Pattern::new(7).fill(0, &mut bytes[HEADER_LEN..]);
        bytes
    }

    #[test]
    fn pieces_of_any_length_are_checked_and_settle_once() {
        for piece in [1, 5, 24, 25, 1000] {
            for (course, follows) in
                [(Course::Free, true), (Course::Holds, true), (Course::Last, false)]
            {
                let (control, mut incoming) = (Control::default(), Incoming::default());
                for bytes in stream(100, course).chunks(piece) {
                    incoming.take(&control, bytes).unwrap();
                }
                assert_eq!(incoming.left(), 0);
                assert_eq!(control.settled(), usize::from(course != Course::Free));
                assert_eq!((incoming.end(), control.received()), (Ok(follows), 124));
            }
        }
    }

    #[test]
    fn what_is_wrong_is_counted_and_told() {
        let control = Control::default();
        let mut bytes = stream(100, Course::Free);
        bytes[50] ^= 1;
        bytes[60] ^= 1;
        let told = Incoming::default().take(&control, &bytes).unwrap_err();
        assert!(told.contains("2 wrong bytes, the first at 26"), "{told}");
        assert_eq!(control.wrong_bytes(), 2);
        let mut short = Incoming::default();
        short.take(&control, &stream(100, Course::Free)[..99]).unwrap();
        assert!(short.end().unwrap_err().contains("75 of 100"));
        let mut long = stream(100, Course::Free);
        long.push(0);
        Pattern::new(7).fill(100, &mut long[HEADER_LEN + 100..]);
        assert!(Incoming::default().take(&control, &long).unwrap_err().contains("more than"));
        let mut nothing = stream(0, Course::Free);
        nothing[16] = 9;
        assert!(Incoming::default().take(&control, &nothing).is_err());
    }
}
