use std::collections::VecDeque;

/// The bytes that a program has sent and the peer has not acknowledged. Offsets count from the
/// first unacknowledged byte.
///
/// The memory is allocated once, when the first byte comes.
#[derive(Debug)]
pub(crate) struct SendBuffer {
    bytes: VecDeque<u8>,
    capacity: usize,
}

impl SendBuffer {
    pub(crate) const fn new(capacity: usize) -> Self {
        Self { bytes: VecDeque::new(), capacity }
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(crate) const fn capacity(&self) -> usize {
        self.capacity
    }

    pub(crate) fn space(&self) -> usize {
        self.capacity - self.bytes.len()
    }

    /// Appends as much of `data` as there is room for; returns how many bytes.
    pub(crate) fn push(&mut self, data: &[u8]) -> usize {
        if self.bytes.capacity() == 0 {
            self.bytes.reserve_exact(self.capacity);
        }
        let taken = &data[..data.len().min(self.space())];
        self.bytes.extend(taken);
        taken.len()
    }

    /// Forgets the first `len` bytes.
    pub(crate) fn acknowledge(&mut self, len: usize) {
        self.bytes.drain(..len);
    }

    /// Copies the bytes from `offset` on into all of `target`.
    pub(crate) fn copy_to(&self, offset: usize, target: &mut [u8]) {
        let (head, tail) = self.bytes.as_slices();
        if let Some(start) = offset.checked_sub(head.len()) {
            target.copy_from_slice(&tail[start..start + target.len()]);
        } else {
            let from_head = target.len().min(head.len() - offset);
            let (first, second) = target.split_at_mut(from_head);
            first.copy_from_slice(&head[offset..offset + from_head]);
            second.copy_from_slice(&tail[..second.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Step {
        Push(usize),
        Acknowledge(usize),
        Copy(usize, usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..200_usize).prop_map(Step::Push),
            (0..200_usize).prop_map(Step::Acknowledge),
            (0..128_usize, 0..128_usize).prop_map(|(at, len)| Step::Copy(at, len)),
        ]
    }

    proptest! {
        #[test]
        fn is_a_bounded_queue_of_bytes(steps in proptest::collection::vec(step(), 1..60)) {
            let mut buffer = SendBuffer::new(128);
            let mut model = Vec::new();
            let mut next = 0_u8;
            for step in steps {
                match step {
                    Step::Push(len) => {
                        let data: Vec<u8> = (0..len).map(|i| next.wrapping_add(i as u8)).collect();
                        let taken = buffer.push(&data);
                        prop_assert_eq!(taken, len.min(128 - model.len()));
                        model.extend_from_slice(&data[..taken]);
                        next = next.wrapping_add(taken as u8);
                    }
                    Step::Acknowledge(len) => {
                        let len = len.min(model.len());
                        buffer.acknowledge(len);
                        model.drain(..len);
                    }
                    Step::Copy(at, len) => {
                        let at = at.min(model.len());
                        let len = len.min(model.len() - at);
                        let mut target = vec![0xee; len];
                        buffer.copy_to(at, &mut target);
                        prop_assert_eq!(&target, &model[at..at + len]);
                    }
                }
                prop_assert_eq!(buffer.len(), model.len());
                prop_assert!(buffer.bytes.capacity() <= 128);
            }
        }
    }
}
