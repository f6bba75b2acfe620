//! An operation as it is kept between submission and execution.

use std::ptr::{self, NonNull};

use crate::{Flags, Operation, OperationKind, Segment, SegmentMut};

/// The most pieces on either side of a scatter-gather copy.
pub(crate) const MAX_SEGMENTS: usize = 16;
/// The most sources of an exclusive or, and of P and Q.
pub(crate) const MAX_SOURCES: usize = 16;

/// An operation with its lists, in a place that is used again and again: nothing is allocated but
/// the room for lists, when a place gets its first operation that has some.
#[derive(Debug)]
pub(crate) struct Descriptor {
    kind: OperationKind,
    flags: Flags,
    /// Sources, or pieces of the source, in `lists`.
    sources: u8,
    /// Pieces of the target in `lists`.
    targets: u8,
    len: usize,
    source: *const u8,
    /// Of a fill.
    pattern: u64,
    target: *mut u8,
    /// Q, if `target` is P.
    second: *mut u8,
    lists: Option<Box<Lists>>,
}

#[derive(Debug)]
struct Lists {
    sources: [*const u8; MAX_SOURCES],
    coefficients: [u8; MAX_SOURCES],
    from: [Segment; MAX_SEGMENTS],
    to: [SegmentMut; MAX_SEGMENTS],
}

// SAFETY: the pointers lead to memory that belongs to the operation, whichever thread has it.
unsafe impl Send for Descriptor {}

impl Default for Descriptor {
    /// A copy of nothing.
    fn default() -> Self {
        Self {
            kind: OperationKind::Memcpy,
            flags: Flags::empty(),
            sources: 0,
            targets: 0,
            len: 0,
            source: ptr::null(),
            pattern: 0,
            target: ptr::null_mut(),
            second: ptr::null_mut(),
            lists: None,
        }
    }
}

impl Descriptor {
    /// Keeps `operation`, whose lists are at most [`MAX_SEGMENTS`] and [`MAX_SOURCES`] long.
    ///
    /// # Panics
    ///
    /// If a list is longer: the caller has not checked it.
    #[inline]
    pub(crate) fn set(&mut self, operation: &Operation<'_>, flags: Flags) {
        (self.kind, self.flags) = (operation.kind(), flags);
        match *operation {
            Operation::Memcpy { source, target, len } => {
                self.set_memcpy(source, target, len, flags);
            }
            Operation::Memset { pattern, target, len } => {
                (self.pattern, self.target, self.len) = (pattern, target, len);
            }
            _ => self.set_lists(operation),
        }
    }

    /// Keeps a copy.
    #[inline]
    pub(crate) const fn set_memcpy(
        &mut self,
        source: *const u8,
        target: *mut u8,
        len: usize,
        flags: Flags,
    ) {
        (self.kind, self.flags) = (OperationKind::Memcpy, flags);
        (self.source, self.target, self.len) = (source, target, len);
    }

    fn set_lists(&mut self, operation: &Operation<'_>) {
        match *operation {
            Operation::Memcpy { .. } | Operation::Memset { .. } => {
                unreachable!("they have no lists: `set` has dealt with them")
            }
            Operation::MemcpySg { sources, targets } => {
                self.len = operation.len();
                let lists = self.lists();
                lists.from[..sources.len()].copy_from_slice(sources);
                lists.to[..targets.len()].copy_from_slice(targets);
                // At most MAX_SEGMENTS each, or the slices above would have panicked.
                (self.sources, self.targets) = (sources.len() as u8, targets.len() as u8);
            }
            Operation::Xor { sources, target, len } => {
                (self.target, self.len) = (target, len);
                self.set_sources(sources, &[]);
            }
            Operation::XorVal { sources, len } => {
                self.len = len;
                self.set_sources(sources, &[]);
            }
            Operation::Pq { sources, coefficients, p, q, len }
            | Operation::PqVal { sources, coefficients, p, q, len } => {
                self.len = len;
                self.target = p.map_or(ptr::null_mut(), NonNull::as_ptr);
                self.second = q.map_or(ptr::null_mut(), NonNull::as_ptr);
                self.set_sources(sources, coefficients);
            }
        }
    }

    fn set_sources(&mut self, sources: &[*const u8], coefficients: &[u8]) {
        let lists = self.lists();
        lists.sources[..sources.len()].copy_from_slice(sources);
        lists.coefficients[..coefficients.len()].copy_from_slice(coefficients);
        // At most MAX_SOURCES, or the slices above would have panicked.
        self.sources = sources.len() as u8;
    }

    fn lists(&mut self) -> &mut Lists {
        self.lists.get_or_insert_with(|| {
            Box::new(Lists {
                sources: [ptr::null(); MAX_SOURCES],
                coefficients: [0; MAX_SOURCES],
                from: [Segment { address: ptr::null(), len: 0 }; MAX_SEGMENTS],
                to: [SegmentMut { address: ptr::null_mut(), len: 0 }; MAX_SEGMENTS],
            })
        })
    }

    /// Which operation it is.
    pub(crate) const fn kind(&self) -> OperationKind {
        self.kind
    }

    /// The flags that it came with.
    pub(crate) const fn flags(&self) -> Flags {
        self.flags
    }

    /// The length as [`Operation::len`] tells it, in bytes.
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// The operation that was kept last.
    #[inline]
    pub(crate) fn operation(&self) -> Operation<'_> {
        let Self { source, pattern, target, len, .. } = *self;
        match self.kind {
            OperationKind::Memcpy => Operation::Memcpy { source, target, len },
            OperationKind::Memset => Operation::Memset { pattern, target, len },
            _ => self.operation_with_lists(),
        }
    }

    fn operation_with_lists(&self) -> Operation<'_> {
        let Self { target, second, len, .. } = *self;
        let Some(lists) = &self.lists else {
            unreachable!("{} was kept without its lists", self.kind)
        };
        let count = usize::from(self.sources);
        let sources = &lists.sources[..count];
        let coefficients = &lists.coefficients[..count];
        let (p, q) = (NonNull::new(target), NonNull::new(second));
        match self.kind {
            OperationKind::Memcpy | OperationKind::Memset => {
                unreachable!("they have no lists: `operation` has dealt with them")
            }
            OperationKind::MemcpySg => Operation::MemcpySg {
                sources: &lists.from[..count],
                targets: &lists.to[..usize::from(self.targets)],
            },
            OperationKind::Xor => Operation::Xor { sources, target, len },
            OperationKind::XorVal => Operation::XorVal { sources, len },
            OperationKind::Pq => Operation::Pq { sources, coefficients, p, q, len },
            OperationKind::PqVal => Operation::PqVal { sources, coefficients, p, q, len },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_comes_back_from_the_same_place() {
        let at = ptr::without_provenance_mut::<u8>;
        let sources = [0x100, 0x200, 0x300].map(|address| at(address).cast_const());
        let [from, other] = [(0x1000, 30), (0x2000, 70)]
            .map(|(address, len)| Segment { address: at(address).cast_const(), len });
        let to = SegmentMut { address: at(0x4000), len: 100 };
        let (p, q) = (NonNull::new(at(0x500)), NonNull::new(at(0x600)));
        let mut place = Descriptor::default();
        for operation in [
            Operation::Memcpy { source: sources[0], target: at(0x900), len: 7 },
            Operation::Pq { sources: &sources, coefficients: &[1, 2, 4], p, q, len: 8 },
            Operation::PqVal { sources: &sources[1..], coefficients: &[9, 8], p: None, q, len: 9 },
            Operation::MemcpySg { sources: &[from, other], targets: &[to] },
            Operation::Xor { sources: &sources[..2], target: at(0x900), len: 10 },
            Operation::XorVal { sources: &sources, len: 11 },
            Operation::Memset { pattern: 12, target: at(0xa00), len: 13 },
        ] {
            place.set(&operation, Flags::FENCE);
            assert_eq!((place.operation(), place.len()), (operation, operation.len()));
            assert_eq!(place.flags(), Flags::FENCE);
        }
    }
}
