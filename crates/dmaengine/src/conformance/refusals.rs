use std::ptr::NonNull;

use super::{Suite, client::Client, memory::Block, samples::declared};
use crate::{
    Addressing, Arena, Argument, DmaChannel, Flags, Operation, OperationKind, Segment, SegmentMut,
    Status, SubmitError,
};

impl Suite<'_> {
    /// What makes no sense, or exceeds a limit, is refused by the error that names the argument and
    /// the limit, for every operation that the channel has. It costs no space, nothing moves, and
    /// the channel stays well. Ranges that touch and do not overlap are taken.
    pub fn refusals(&self, channel: Box<dyn DmaChannel>) {
        let mut client = Client::new(self, channel);
        for kind in declared(&client) {
            let wrong = Wrong::new(&client);
            match kind {
                OperationKind::Memcpy => wrong.memcpy(&mut client),
                OperationKind::MemcpySg => wrong.memcpy_sg(&mut client),
                OperationKind::Memset => wrong.memset(&mut client),
                OperationKind::Xor | OperationKind::XorVal => wrong.xor(&mut client, kind),
                OperationKind::Pq | OperationKind::PqVal => wrong.pq(&mut client, kind),
            }
            assert_eq!(client.poll(), 0, "something was refused and reported");
            client.works();
            wrong.check(&format!("{kind} that was refused"));
        }
        client.finish();
    }

    /// An engine of IOVAs refuses memory that was not mapped for it, in every place where an
    /// operation names memory, and memory that only begins in an arena; one of process addresses
    /// takes it all.
    pub fn unreachable_memory(&self, channel: Box<dyn DmaChannel>) {
        let mut client = Client::new(self, channel);
        let strange = Arena::new(1 << 16).expect("64 KiB");
        let len = client.fitting(64, 1);
        for kind in declared(&client) {
            // Sources, then targets: each of the four in the strange arena once.
            for place in 0..4 {
                let block = |at| {
                    let arena = if at == place { &strange } else { client.arena() };
                    let mut block = Block::new(arena, len);
                    block.write(0, &vec![0; len]);
                    block
                };
                let blocks = [0, 1, 2, 3].map(block);
                let [a, b, p, q] = [0, 1, 2, 3].map(|at| blocks[at].at(0));
                submit_to(
                    &mut client,
                    kind,
                    [a, b, p, q],
                    len,
                    (place, blocks[place].at(0).addr()),
                );
            }
        }
        if client.info().addressing == Addressing::Iova {
            let arena = client.arena().clone();
            let unit = client.info().alignment.get();
            let end = arena.base().wrapping_add(arena.len()).cast_mut();
            let (last, target) = (end.wrapping_sub(unit), Block::new(&arena, 2 * unit));
            for (source, target, strange) in [
                (last, target.at(0), Argument::Source(0)),
                (target.at(0), last, Argument::Target(0)),
            ] {
                let copy = Operation::Memcpy { source, target, len: 2 * unit };
                // SAFETY: it is refused, or the suite panics before it is issued.
                let refused = unsafe { client.try_submit(&copy, Flags::empty(), 0) };
                let range = last.addr()..last.addr() + 2 * unit;
                let named = matches!(
                    refused,
                    Err(SubmitError::Unreachable { argument, address })
                        if argument == strange && range.contains(&address)
                );
                assert!(named, "a range past the end of an arena: {refused:?}");
            }
        }
        client.finish();
    }
}

/// Runs an operation of which the memory at one place (its number and address) is in no arena that
/// was mapped; all memory is zeros.
fn submit_to(
    client: &mut Client,
    kind: OperationKind,
    [a, b, p, q]: [*mut u8; 4],
    len: usize,
    (place, strange): (usize, usize),
) {
    let sources = [a.cast_const(), b.cast_const()];
    let xor_sources = &sources[..client.info().max_xor.min(2)];
    let pq_sources = &sources[..client.info().max_pq.min(2)];
    let coefficients = &[1, 2][..pq_sources.len()];
    let (some_p, some_q) = (NonNull::new(p), NonNull::new(q));
    let sg = client.info().max_sg.min(2);
    let from = [Segment { address: a, len }, Segment { address: b, len }];
    let to = [SegmentMut { address: p, len }, SegmentMut { address: q, len }];
    let (operation, places): (_, &[usize]) = match kind {
        OperationKind::Memcpy => (Operation::Memcpy { source: a, target: p, len }, &[0, 2]),
        OperationKind::Memset => (Operation::Memset { pattern: 0, target: p, len }, &[2]),
        OperationKind::MemcpySg => (
            Operation::MemcpySg { sources: &from[..sg], targets: &to[..sg] },
            if sg == 2 { &[0, 1, 2, 3] } else { &[0, 2] },
        ),
        OperationKind::Xor => (
            Operation::Xor { sources: xor_sources, target: p, len },
            if xor_sources.len() == 2 { &[0, 1, 2] } else { &[0, 2] },
        ),
        OperationKind::XorVal => (
            Operation::XorVal { sources: xor_sources, len },
            if xor_sources.len() == 2 { &[0, 1] } else { &[0] },
        ),
        OperationKind::Pq => (
            Operation::Pq { sources: pq_sources, coefficients, p: some_p, q: some_q, len },
            if pq_sources.len() == 2 { &[0, 1, 2, 3] } else { &[0, 2, 3] },
        ),
        OperationKind::PqVal => (
            Operation::PqVal { sources: pq_sources, coefficients, p: some_p, q: some_q, len },
            if pq_sources.len() == 2 { &[0, 1, 2, 3] } else { &[0, 2, 3] },
        ),
    };
    // Two pieces of `len` may be more than a small ring holds.
    if client.info().check(&operation, Flags::empty()).is_err() {
        assert_eq!(kind, OperationKind::MemcpySg, "only that one is longer than a piece");
        return;
    }
    if client.info().addressing == Addressing::Iova && places.contains(&place) {
        let argument = match (kind, place) {
            (_, 0 | 1) => Argument::Source(place),
            (OperationKind::Pq | OperationKind::PqVal, 2) => Argument::P,
            (OperationKind::Pq | OperationKind::PqVal, _) => Argument::Q,
            _ => Argument::Target(place - 2),
        };
        let refusal = SubmitError::Unreachable { argument, address: strange };
        // SAFETY: it is refused, or the suite panics before it is issued.
        unsafe { client.refuse(&operation, Flags::empty(), refusal) };
    } else {
        // SAFETY: the caller's blocks stay until it has ended; the engine can reach them.
        let status = unsafe { client.run(&operation, Flags::empty()) };
        assert_eq!(status, Status::Success, "{kind} with memory of another arena at {place}");
    }
}

/// Memory for operations that are not to happen.
struct Wrong {
    source: Block,
    target: Block,
    unit: usize,
    /// Four units, if the ring holds as much.
    len: usize,
}

impl Wrong {
    fn new(client: &Client) -> Self {
        let info = client.info();
        let (unit, len) = (info.alignment.get(), client.fitting(4 * info.alignment.get(), 1));
        let units = 16 + 2 * info.max_sg + info.max_xor + info.max_pq;
        let source = Block::random(client.arena(), units * unit, 4);
        let target = Block::random(client.arena(), units * unit, 5);
        Self { source, target, unit, len }
    }

    fn check(&self, what: &str) {
        self.source.check(what);
        self.target.check(what);
    }

    #[track_caller]
    fn refuse(&self, client: &mut Client, operation: &Operation<'_>, expected: SubmitError) {
        // SAFETY: nobody touches the blocks; if it is taken after all, the suite panics before it
        // is issued.
        unsafe { client.refuse(operation, Flags::empty(), expected) };
    }

    /// Refuses what `with_len` makes of a length of zero, and of one that no ring holds.
    fn lengths<'a>(&self, client: &mut Client, with_len: impl Fn(usize) -> Operation<'a>) {
        self.refuse(client, &with_len(0), SubmitError::ZeroLength);
        let info = client.info();
        let max = info.xfercap.get().saturating_mul(info.ring_size);
        // Of an engine without XFERCAP there is no such length.
        if max < isize::MAX.unsigned_abs() - self.unit {
            let len = max.next_multiple_of(self.unit) + self.unit;
            self.refuse(client, &with_len(len), SubmitError::TooLong { len, max });
        }
    }

    /// Refuses what is not aligned, if the channel minds.
    fn misaligned(&self, client: &mut Client, operations: &[(Argument, Operation<'_>)]) {
        let alignment = self.unit;
        if alignment > 1 {
            for &(argument, ref operation) in operations {
                self.refuse(client, operation, SubmitError::Misaligned { argument, alignment });
            }
        }
    }

    fn memcpy(&self, client: &mut Client) {
        let Self { source, target, unit, len } = self;
        let (from, to, len) = (source.at(0), target.at(0), *len);
        let copy = |source: *mut u8, target, len| Operation::Memcpy { source, target, len };
        self.lengths(client, |len| copy(from, to, len));
        self.misaligned(
            client,
            &[
                (Argument::Source(0), copy(from.wrapping_add(1), to, len)),
                (Argument::Target(0), copy(from, to.wrapping_add(1), len)),
                (Argument::Length, copy(from, to, len - 1)),
            ],
        );
        let overlap = overlap(Argument::Target(0), Argument::Source(0));
        self.refuse(client, &copy(to, to, len), overlap);
        for shared in (*unit..len).step_by(*unit) {
            let behind = to.wrapping_add(len - shared);
            self.refuse(client, &copy(to, behind, len), overlap);
            self.refuse(client, &copy(behind, to, len), overlap);
        }
        let mut block = Block::random(client.arena(), 2 * len, 6);
        for (from, to) in [(0, len), (len, 0)] {
            block.randomize(len as u64 + from as u64);
            let bytes = block.expected(from..from + len).to_vec();
            block.expect(to, &bytes);
            // SAFETY: they touch and share nothing; the block stays until `run` has seen the end.
            let status =
                unsafe { client.run(&copy(block.at(from), block.at(to), len), Flags::empty()) };
            assert_eq!(status, Status::Success, "a copy to where its source ends or begins");
            block.check("a copy to where its source ends or begins");
        }
    }

    fn memset(&self, client: &mut Client) {
        let (target, len) = (self.target.at(0), self.len);
        let fill = |target, len| Operation::Memset { pattern: 1, target, len };
        self.lengths(client, |len| fill(target, len));
        self.misaligned(
            client,
            &[
                (Argument::Target(0), fill(target.wrapping_add(1), len)),
                (Argument::Length, fill(target, len - 1)),
            ],
        );
    }

    fn memcpy_sg(&self, client: &mut Client) {
        let (unit, max) = (self.unit, client.info().max_sg);
        let from = |at: usize, units: usize| {
            let (at, len) = (at * unit, units * unit);
            Segment { address: self.source.at(at), len }
        };
        let to = |at: usize, units: usize| {
            let (at, len) = (at * unit, units * unit);
            SegmentMut { address: self.target.at(at), len }
        };
        let refuse = |client: &mut Client, sources: &[Segment], targets: &[SegmentMut], error| {
            self.refuse(client, &Operation::MemcpySg { sources, targets }, error);
        };
        refuse(client, &[], &[], SubmitError::ZeroLength);
        let mismatch = |source: usize, target: usize| SubmitError::LengthMismatch {
            source_len: source * unit,
            target_len: target * unit,
        };
        refuse(client, &[from(0, 1)], &[], mismatch(1, 0));
        refuse(client, &[], &[to(0, 1)], mismatch(0, 1));
        refuse(client, &[from(0, 2)], &[to(0, 1)], mismatch(2, 1));
        let many_sources: Vec<_> = (0..=max).map(|at| from(at, 1)).collect();
        let many_targets: Vec<_> = (0..=max).map(|at| to(at, 1)).collect();
        let too_many = |list| SubmitError::TooManySegments { list, segments: max + 1, max };
        refuse(client, &many_sources, &[to(0, max + 1)], too_many(Argument::Sources));
        refuse(client, &[from(0, max + 1)], &many_targets, too_many(Argument::Targets));
        let inside = SegmentMut { address: self.source.at(0), len: unit };
        refuse(client, &[from(0, 1)], &[inside], overlap(Argument::Target(0), Argument::Source(0)));
        let long = client.info().xfercap.get().saturating_mul(client.info().ring_size);
        if long < isize::MAX.unsigned_abs() - unit {
            let len = long.next_multiple_of(unit) + unit;
            let (source, target) = (Segment { len, ..from(0, 1) }, SegmentMut { len, ..to(0, 1) });
            refuse(client, &[source], &[target], SubmitError::TooLong { len, max: long });
        }
        if unit > 1 {
            let error = |argument| SubmitError::Misaligned { argument, alignment: unit };
            let off = Segment { address: self.source.at(1), len: unit };
            refuse(client, &[off], &[to(0, 1)], error(Argument::Source(0)));
            let off = SegmentMut { address: self.target.at(1), len: unit };
            refuse(client, &[from(0, 1)], &[off], error(Argument::Target(0)));
            let short = (Segment { len: unit - 1, ..from(0, 1) }, to(0, 1));
            let short = (short.0, SegmentMut { len: unit - 1, ..short.1 });
            refuse(client, &[short.0], &[short.1], error(Argument::Source(0)));
        }
        if max < 2 {
            return;
        }
        let empty = |piece| SubmitError::EmptyPiece { piece };
        refuse(client, &[from(0, 1), from(2, 0)], &[to(0, 1)], empty(Argument::Source(1)));
        refuse(client, &[from(0, 1)], &[to(2, 0), to(0, 1)], empty(Argument::Target(0)));
        // Sums that no address space holds.
        let endless = |len| Segment { len, ..from(0, 1) };
        let error = SubmitError::LengthMismatch { source_len: usize::MAX, target_len: unit };
        refuse(client, &[endless(usize::MAX), endless(usize::MAX)], &[to(0, 1)], error);
        if client.fitting(2 * unit, 1) == 2 * unit {
            let two = [from(0, 1), from(2, 1)];
            let overlap = |other| overlap(Argument::Target(1), other);
            refuse(client, &two, &[to(0, 1), to(0, 1)], overlap(Argument::Target(0)));
            let inside = SegmentMut { address: self.source.at(2 * unit), len: unit };
            refuse(client, &two, &[to(0, 1), inside], overlap(Argument::Source(1)));
        }
        self.more_pieces_than_the_ring_holds(client);
    }

    /// Two lists that are each short enough, cut at places that make them twice as many pieces.
    fn more_pieces_than_the_ring_holds(&self, client: &mut Client) {
        let (unit, info) = (self.unit, client.info().clone());
        let sources = info.max_sg - 1;
        let descriptors = 2 * sources;
        let holds = info.xfercap.get().saturating_mul(info.ring_size);
        if descriptors <= info.ring_size || descriptors * unit > holds {
            return;
        }
        let from: Vec<_> = (0..sources)
            .map(|at| Segment { address: self.source.at(2 * at * unit), len: 2 * unit })
            .collect();
        let to: Vec<_> = (0..=sources)
            .map(|at| {
                let len = if at == 0 || at == sources { unit } else { 2 * unit };
                SegmentMut { address: self.target.at(2 * at * unit), len }
            })
            .collect();
        let max = info.ring_size;
        let copy = Operation::MemcpySg { sources: &from, targets: &to };
        self.refuse(client, &copy, SubmitError::TooManyDescriptors { descriptors, max });
    }

    fn xor(&self, client: &mut Client, kind: OperationKind) {
        let (max, len, unit) = (client.info().max_xor, self.len, self.unit);
        let target = self.target.at(0);
        // A function, as a closure would borrow all lists for one lifetime.
        fn of(
            kind: OperationKind,
            sources: &[*const u8],
            target: *mut u8,
            len: usize,
        ) -> Operation<'_> {
            match kind {
                OperationKind::Xor => Operation::Xor { sources, target, len },
                _ => Operation::XorVal { sources, len },
            }
        }
        let pointers: Vec<_> = (0..=max).map(|at| self.source.at(at * unit).cast_const()).collect();
        let one = &pointers[..1];
        self.refuse(
            client,
            &of(kind, &[], target, len),
            SubmitError::SourceCount { sources: 0, max },
        );
        let error = SubmitError::SourceCount { sources: max + 1, max };
        self.refuse(client, &of(kind, &pointers, target, len), error);
        self.lengths(client, |len| of(kind, one, target, len));
        let off = [pointers[0].wrapping_add(1)];
        self.misaligned(
            client,
            &[
                (Argument::Source(0), of(kind, &off, target, len)),
                (Argument::Length, of(kind, one, target, len - 1)),
            ],
        );
        if kind == OperationKind::XorVal {
            return;
        }
        let off = of(kind, one, target.wrapping_add(1), len);
        self.misaligned(client, &[(Argument::Target(0), off)]);
        for shared in (unit..=len).step_by(unit) {
            let other = target.wrapping_add(len - shared).cast_const();
            let mut sources = vec![self.source.at(0).cast_const(); max - 1];
            sources.push(other);
            let error = overlap(Argument::Target(0), Argument::Source(max - 1));
            self.refuse(client, &of(kind, &sources, target, len), error);
        }
    }

    fn pq(&self, client: &mut Client, kind: OperationKind) {
        let (max, len, unit) = (client.info().max_pq, self.len, self.unit);
        let pointers: Vec<_> = (0..=max).map(|at| self.source.at(at * unit).cast_const()).collect();
        let ones = vec![1; max + 1];
        let target = |at: usize| NonNull::new(self.target.at(at));
        let (p, q) = (target(0), target(4 * unit));
        // As in `xor`.
        fn of<'a>(
            kind: OperationKind,
            (sources, coefficients): (&'a [*const u8], &'a [u8]),
            (p, q): (Option<NonNull<u8>>, Option<NonNull<u8>>),
            len: usize,
        ) -> Operation<'a> {
            match kind {
                OperationKind::Pq => Operation::Pq { sources, coefficients, p, q, len },
                _ => Operation::PqVal { sources, coefficients, p, q, len },
            }
        }
        let (one, single) = (&pointers[..1], &ones[..1]);
        let error = SubmitError::SourceCount { sources: 0, max };
        self.refuse(client, &of(kind, (&[], &[]), (p, q), len), error);
        let error = SubmitError::SourceCount { sources: max + 1, max };
        self.refuse(client, &of(kind, (&pointers, &ones), (p, q), len), error);
        for coefficients in [0, max + 1] {
            let error = SubmitError::CoefficientCount { sources: 1, coefficients };
            self.refuse(client, &of(kind, (one, &ones[..coefficients]), (p, q), len), error);
        }
        self.refuse(client, &of(kind, (one, single), (None, None), len), SubmitError::NoTarget);
        for (p, q) in [(p, q), (p, None), (None, q)] {
            self.lengths(client, |len| of(kind, (one, single), (p, q), len));
        }
        let off = [pointers[0].wrapping_add(1)];
        let (off_p, off_q) = (target(1), target(4 * unit + 1));
        self.misaligned(
            client,
            &[
                (Argument::Source(0), of(kind, (&off, single), (p, q), len)),
                (Argument::Length, of(kind, (one, single), (p, q), len - 1)),
                (Argument::P, of(kind, (one, single), (off_p, q), len)),
                (Argument::Q, of(kind, (one, single), (p, off_q), len)),
                (Argument::P, of(kind, (one, single), (off_p, None), len)),
                (Argument::Q, of(kind, (one, single), (None, off_q), len)),
            ],
        );
        if kind == OperationKind::PqVal {
            return;
        }
        for shared in (unit..=len).step_by(unit) {
            let other = target(len - shared);
            let both = overlap(Argument::Q, Argument::P);
            self.refuse(client, &of(kind, (one, single), (p, other), len), both);
            self.refuse(client, &of(kind, (one, single), (other, p), len), both);
            let sources = &[self.target.at(len - shared).cast_const()];
            let of = |p, q| of(kind, (sources, single), (p, q), len);
            let source = |target| overlap(target, Argument::Source(0));
            self.refuse(client, &of(p, None), source(Argument::P));
            self.refuse(client, &of(None, p), source(Argument::Q));
            self.refuse(client, &of(p, target(2 * len)), source(Argument::P));
        }
    }
}

const fn overlap(target: Argument, other: Argument) -> SubmitError {
    SubmitError::Overlap { target, other }
}
