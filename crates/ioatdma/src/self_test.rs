//! Tests of a channel before the device is taken into service, as Linux does them: a copy of 2000
//! bytes; with exclusive or, 6 sources of a page, a check that finds nothing, and one that must find
//! something. Likewise P and Q, of 6 and of the most sources, which the software engine makes too.

use std::{ptr::NonNull, time::Duration};

use dmaengine::{
    Capabilities, Completion, CpuDevice, DmaBuf, DmaChannel, DmaDevice, Flags, Operation, Status,
};

use crate::{
    bar::{Bar, wait},
    channel::IoatChannel,
    device::Shared,
    error::{ProbeError, StartError},
};

const PAGE: usize = 4096;
/// Length of the copy in bytes, as Linux's.
const COPY_LEN: usize = 2000;
/// Sources of a page, as Linux's.
const SOURCES: usize = 6;
/// Where the device writes, behind the sources: the target of a copy and an exclusive or, P, and Q.
const TARGET: usize = SOURCES * PAGE;
const Q: usize = TARGET + PAGE;
/// Where the software engine writes P and Q.
const EXPECTED_P: usize = Q + PAGE;
const EXPECTED_Q: usize = EXPECTED_P + PAGE;
const END: usize = EXPECTED_Q + PAGE;
/// Memory that is needed of the driver's arena, in bytes.
pub(crate) const MEMORY: usize = END + PAGE;
/// How long an operation may take (Linux: 3 s).
const TIMEOUT: Duration = Duration::from_secs(3);

/// Tests a channel, and gives it back.
pub(crate) fn run(shared: &Shared, channel: IoatChannel, index: usize) -> Result<(), ProbeError> {
    let memory = shared.arena.alloc(END).map_err(StartError::from);
    let memory = memory.map_err(|source| ProbeError::Start { channel: index, source })?;
    let capabilities = channel.info().capabilities;
    let max_pq = channel.info().max_pq;
    let mut test = Test { channel, memory, bar: &*shared.bar };
    test.copy()?;
    if capabilities.contains(Capabilities::XOR | Capabilities::XOR_VAL) {
        test.exclusive_or()?;
    }
    if capabilities.contains(Capabilities::PQ | Capabilities::PQ_VAL) {
        test.p_and_q(SOURCES, PAGE)?;
        // All sources in what were the pages.
        test.p_and_q(max_pq, TARGET / max_pq)?;
    }
    Ok(())
}

struct Test<'a> {
    // First, so that it is dropped first: it proves that the device has let go of the memory.
    channel: IoatChannel,
    memory: DmaBuf,
    bar: &'a dyn Bar,
}

impl Test<'_> {
    fn source(&self, offset: usize) -> *const u8 {
        self.memory.as_ptr().wrapping_add(offset)
    }

    fn target(&mut self, offset: usize) -> *mut u8 {
        self.memory.as_mut_ptr().wrapping_add(offset)
    }

    fn copy(&mut self) -> Result<(), ProbeError> {
        self.memory[..COPY_LEN].iter_mut().enumerate().for_each(|(at, byte)| *byte = at as u8);
        self.memory[TARGET..TARGET + COPY_LEN].fill(0);
        let (source, target) = (self.source(0), self.target(TARGET));
        let copy = Operation::Memcpy { source, target, len: COPY_LEN };
        self.expect(&copy, Status::Success)?;
        self.same(&copy, TARGET, 0, COPY_LEN)
    }

    fn exclusive_or(&mut self) -> Result<(), ProbeError> {
        self.fill_sources(PAGE);
        self.memory[TARGET..TARGET + PAGE].fill(0);
        self.memory[EXPECTED_P..EXPECTED_P + PAGE].fill((1 << SOURCES) - 1);
        let mut sources = [self.source(TARGET); 1 + SOURCES];
        for (index, source) in sources[1..].iter_mut().enumerate() {
            *source = self.source(index * PAGE);
        }
        let target = self.target(TARGET);
        let xor = Operation::Xor { sources: &sources[1..], target, len: PAGE };
        self.expect(&xor, Status::Success)?;
        self.same(&xor, TARGET, EXPECTED_P, PAGE)?;
        let check = Operation::XorVal { sources: &sources, len: PAGE };
        self.expect(&check, Status::Success)?;
        self.memory[TARGET..TARGET + PAGE].fill(0);
        self.expect(&check, Status::MismatchP)
    }

    /// With so many sources of `len` bytes each.
    fn p_and_q(&mut self, count: usize, len: usize) -> Result<(), ProbeError> {
        self.fill_sources(len);
        self.memory[TARGET..].fill(0);
        let sources: Vec<_> = (0..count).map(|index| self.source(index * len)).collect();
        // The powers of 2, as long as they fit: any will do.
        let coefficients: Vec<_> = (0..count as u32).map(|index| 1_u8.rotate_left(index)).collect();
        let (sources, coefficients) = (&sources[..], &coefficients[..]);
        let mut at = |offset| NonNull::new(self.target(offset));
        let (p, q) = (at(TARGET), at(Q));
        let expected = (at(EXPECTED_P), at(EXPECTED_Q));
        let pq = Operation::Pq { sources, coefficients, p, q, len };
        let by_software =
            Operation::Pq { sources, coefficients, p: expected.0, q: expected.1, len };
        let reference = CpuDevice::new(1).request_channel(0);
        if let Ok(mut reference) = reference {
            // SAFETY: all of it lies in our memory, at different places, and nobody touches that
            // before the channel has been dropped.
            let _ = unsafe { reference.submit(&by_software, Flags::empty()) };
            reference.issue_pending();
        }
        self.expect(&pq, Status::Success)?;
        self.same(&pq, TARGET, EXPECTED_P, len)?;
        self.same(&pq, Q, EXPECTED_Q, len)?;
        let check = Operation::PqVal { sources, coefficients, p, q, len };
        self.expect(&check, Status::Success)?;
        self.memory[Q + len - 1] ^= 1;
        self.expect(&check, Status::MismatchQ)
    }

    /// Source `n` of `len` bytes has nothing but the bit `n` modulo 8.
    fn fill_sources(&mut self, len: usize) {
        for (index, source) in self.memory[..TARGET].chunks_mut(len).enumerate() {
            source.fill(1_u8.rotate_left(index as u32));
        }
    }

    /// Has an operation done, which must end with `expected`.
    fn expect(&mut self, operation: &Operation<'_>, expected: Status) -> Result<(), ProbeError> {
        let failed =
            |status| ProbeError::SelfTestStatus { operation: operation.kind(), status, expected };
        // SAFETY: all that it names lies in our memory, which lives until the channel has been
        // dropped. It is not touched before the operation has ended: if it does not, the test is
        // over.
        let submitted = unsafe { self.channel.submit(operation, Flags::empty()) };
        submitted.map_err(|_| failed(Status::Aborted))?;
        self.channel.issue_pending();
        let Self { channel, bar, .. } = self;
        let mut ended = None;
        wait(*bar, TIMEOUT, || {
            channel.poll(&mut |completion: Completion| ended = Some(completion.status));
            ended.is_some()
        });
        match ended.unwrap_or(Status::TimedOut) {
            status if status == expected => Ok(()),
            status => Err(failed(status)),
        }
    }

    /// Whether what `operation` wrote at `offset` is what stands at `expected`.
    fn same(
        &self,
        operation: &Operation<'_>,
        offset: usize,
        expected: usize,
        len: usize,
    ) -> Result<(), ProbeError> {
        let written = self.memory[offset..offset + len].iter();
        let expected = &self.memory[expected..expected + len];
        match written.zip(expected).position(|(written, expected)| written != expected) {
            None => Ok(()),
            Some(offset) => Err(ProbeError::SelfTestData { operation: operation.kind(), offset }),
        }
    }
}
