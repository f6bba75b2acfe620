//! Urgent data, as it arrives: one byte of the stream that a program can have out of band.
//!
//! The urgent pointer of a segment names a byte ahead in the stream, the *mark*. RFC 793 contradicts
//! itself about which, RFC 6093 section 2.1 records that everybody points behind the last urgent
//! byte, and so does Linux unless its `tcp_stdurg` is set. There is one mark: a later one replaces
//! it, and the byte of the earlier becomes one of the stream's.

/// How far the marked byte has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Byte {
    /// It was announced: Linux's `TCP_URG_NOTYET`.
    Announced,
    /// It has arrived, perhaps before bytes that precede it: `TCP_URG_VALID`.
    Arrived(u8),
    /// The program has had it, out of band: `TCP_URG_READ`.
    Read,
}

/// The urgent mark. Positions count the stream's bytes from its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UrgentMark {
    position: u64,
    byte: Byte,
}

impl UrgentMark {
    /// A mark that was just announced.
    pub(crate) const fn new(position: u64) -> Self {
        Self { position, byte: Byte::Announced }
    }

    pub(crate) const fn position(&self) -> u64 {
        self.position
    }

    /// Looks for the marked byte in a segment whose `payload` begins at `start`, in order or not;
    /// `true` if it has arrived with it.
    pub(crate) fn look(&mut self, start: i64, payload: &[u8]) -> bool {
        let offset = self.position.checked_add_signed(start.wrapping_neg());
        let found = offset.and_then(|offset| payload.get(usize::try_from(offset).ok()?));
        match (self.byte, found) {
            (Byte::Announced, Some(&byte)) => {
                self.byte = Byte::Arrived(byte);
                true
            }
            _ => false,
        }
    }

    /// The byte, if it has arrived and the program has not had it.
    pub(crate) const fn byte(&self) -> Option<u8> {
        match self.byte {
            Byte::Arrived(byte) => Some(byte),
            Byte::Announced | Byte::Read => None,
        }
    }

    pub(crate) const fn is_read(&self) -> bool {
        matches!(self.byte, Byte::Read)
    }

    /// The program has had the byte out of band.
    pub(crate) const fn set_read(&mut self) {
        self.byte = Byte::Read;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_byte_is_found_where_it_is_and_once() {
        let payload = [0, 1, 2, 3, 4, 5];
        let found = [(10, Some(0)), (6, Some(4)), (5, Some(5)), (4, None), (11, None), (-5, None)];
        for (start, byte) in found {
            let mut mark = UrgentMark::new(10);
            assert_eq!(mark.look(start, &payload), byte.is_some(), "from {start}");
            assert_eq!(mark.byte(), byte, "from {start}");
            assert!(!mark.look(start, &payload), "it arrives once");
        }
    }

    #[test]
    fn a_byte_that_was_read_does_not_come_again() {
        let mut mark = UrgentMark::new(0);
        assert!(mark.look(0, b"x"));
        mark.set_read();
        assert!(mark.is_read() && mark.byte().is_none());
        assert!(!mark.look(0, b"y"));
    }
}
