//! Exclusive or, P and Q: RAID 5 and 6.

use std::ptr::NonNull;

use super::{Suite, client::Client, copies::lengths, memory::Block, scatter_gather::counts};
use crate::{DmaChannel, Flags, Operation, OperationKind, Status, SubmitError, random::SplitMix64};

/// No source is longer, in bytes.
const MAX_LEN: usize = 8193;

/// With how many sources, and of what length, an operation is tried.
fn shapes(client: &Client, max_sources: usize) -> Vec<(usize, usize)> {
    let lengths = lengths(client, MAX_LEN);
    let longest = lengths.last().copied().unwrap_or(1);
    let few = [1, 2, 3.min(max_sources)];
    let mut shapes: Vec<(usize, usize)> = lengths
        .iter()
        .flat_map(|&len| few.into_iter().filter(|&few| few <= max_sources).map(move |n| (n, len)))
        .collect();
    for count in counts(max_sources) {
        shapes.extend([(count, client.fitting(100, 1)), (count, client.fitting(1025, 1))]);
    }
    shapes.push((max_sources, longest));
    shapes
}

/// Sources, and where P and Q go, each at a place of its own; places are not aligned unless they
/// have to be.
struct Stripe {
    sources: Block,
    offsets: Vec<usize>,
    coefficients: Vec<u8>,
    len: usize,
    p: Block,
    q: Block,
    at: usize,
}

impl Stripe {
    fn new(client: &Client, count: usize, len: usize, seed: u64) -> Self {
        let mut random = SplitMix64::new(seed);
        let stride = client.aligned(len + 100);
        let offsets = (0..count)
            .map(|index| index * stride + client.aligned(random.below(100)).min(stride - len))
            .collect();
        // The coefficients of RAID 6 are the powers of 2; others are as good.
        let coefficients = (0..count).map(|_| random.next() as u8).collect();
        let arena = client.arena();
        Self {
            sources: Block::random(arena, count * stride, seed),
            offsets,
            coefficients,
            len,
            p: Block::new(arena, len + 4096),
            q: Block::new(arena, len + 4096),
            at: client.aligned(random.below(64)),
        }
    }

    fn pointers(&self) -> Vec<*const u8> {
        self.offsets.iter().map(|&offset| self.sources.at(offset).cast_const()).collect()
    }

    fn source(&self, index: usize) -> &[u8] {
        let offset = self.offsets[index];
        self.sources.expected(offset..offset + self.len)
    }

    /// The exclusive or of the first `count` sources.
    fn xor(&self, count: usize) -> Vec<u8> {
        let mut sum = vec![0; self.len];
        for index in 0..count {
            sum.iter_mut().zip(self.source(index)).for_each(|(sum, byte)| *sum ^= byte);
        }
        sum
    }

    /// The sum of the products.
    fn products(&self) -> Vec<u8> {
        let field = Field::new();
        let mut sum = vec![0; self.len];
        for (index, &coefficient) in self.coefficients.iter().enumerate() {
            for (sum, &byte) in sum.iter_mut().zip(self.source(index)) {
                *sum ^= field.multiply(coefficient, byte);
            }
        }
        sum
    }

    /// Nothing was written but what was expected to be.
    #[track_caller]
    fn check(&self, what: &str) {
        self.sources.check(what);
        self.p.check(what);
        self.q.check(what);
    }

    fn syndromes(&self, (p, q): (bool, bool)) -> (Option<NonNull<u8>>, Option<NonNull<u8>>) {
        let at = |given: bool, block: &Block| given.then(|| NonNull::new(block.at(self.at)))?;
        (at(p, &self.p), at(q, &self.q))
    }
}

/// The field of RAID 6 by its logarithms: another way than the engines of this crate go, which must
/// not be tested with themselves.
pub(super) struct Field {
    power: [u8; 255],
    logarithm: [u8; 256],
}

impl Field {
    pub(super) fn new() -> Self {
        let (mut power, mut logarithm) = ([0; 255], [0; 256]);
        let mut element = 1_u16;
        for exponent in 0..255_u8 {
            power[usize::from(exponent)] = element as u8;
            logarithm[usize::from(element)] = exponent;
            element <<= 1;
            if element & 0x100 != 0 {
                element ^= 0x11d;
            }
        }
        Self { power, logarithm }
    }

    pub(super) fn multiply(&self, a: u8, b: u8) -> u8 {
        if a == 0 || b == 0 {
            return 0;
        }
        let logarithm = |element: u8| usize::from(self.logarithm[usize::from(element)]);
        self.power[(logarithm(a) + logarithm(b)) % 255]
    }
}

/// The places in a source where a wrong bit is tried.
fn wrong_places(len: usize) -> [usize; 3] {
    [0, len / 2, len - 1]
}

impl Suite<'_> {
    /// Exclusive ors of 1 to the most sources that the channel takes, of many lengths.
    ///
    /// A channel without [`XOR`](crate::Capabilities::XOR) must refuse them.
    pub fn xor(&self, channel: Box<dyn DmaChannel>) {
        let mut client = Client::new(self, channel);
        if !client.can(OperationKind::Xor) {
            refused(&mut client, OperationKind::Xor);
            return client.finish();
        }
        for (index, (count, len)) in shapes(&client, client.info().max_xor).into_iter().enumerate()
        {
            let mut stripe = Stripe::new(&client, count, len, index as u64);
            let what = format!("the exclusive or of {count} sources of {len} bytes");
            let parity = stripe.xor(count);
            stripe.p.expect(stripe.at, &parity);
            let sources = stripe.pointers();
            let xor = Operation::Xor { sources: &sources, target: stripe.p.at(stripe.at), len };
            // SAFETY: all of it lies in the stripe's blocks, which stay until `run` has seen the
            // end.
            let status = unsafe { client.run(&xor, Flags::empty()) };
            assert_eq!(status, Status::Success, "{what}");
            stripe.check(&what);
        }
        client.finish();
    }

    /// Checks of parity that is right, and that is wrong by one bit at the first, the middle and the
    /// last byte of some source.
    ///
    /// A channel without [`XOR_VAL`](crate::Capabilities::XOR_VAL) must refuse them.
    pub fn xor_checks(&self, channel: Box<dyn DmaChannel>) {
        let mut client = Client::new(self, channel);
        if !client.can(OperationKind::XorVal) {
            refused(&mut client, OperationKind::XorVal);
            return client.finish();
        }
        for (index, (count, len)) in shapes(&client, client.info().max_xor).into_iter().enumerate()
        {
            let mut stripe = Stripe::new(&client, count, len, index as u64);
            let what = format!("the check of {count} sources of {len} bytes");
            let parity = stripe.xor(count - 1);
            stripe.sources.write(stripe.offsets[count - 1], &parity);
            let sources = stripe.pointers();
            let check = Operation::XorVal { sources: &sources, len };
            // SAFETY: the sources lie in a block that stays until `run` has seen the end.
            let status = unsafe { client.run(&check, Flags::empty()) };
            assert_eq!(status, Status::Success, "{what}");
            for (turn, place) in wrong_places(len).into_iter().enumerate() {
                let place = stripe.offsets[(index + turn) % count] + place;
                flip(&mut stripe.sources, place, index + turn);
                // SAFETY: as above.
                let status = unsafe { client.run(&check, Flags::empty()) };
                assert_eq!(status, Status::MismatchP, "{what}, wrong at {place}");
                flip(&mut stripe.sources, place, index + turn);
            }
            stripe.check(&what);
        }
        client.finish();
    }

    /// P and Q, both or one of them, of 1 to the most sources that the channel takes, of many
    /// lengths and with any coefficients.
    ///
    /// A channel without [`PQ`](crate::Capabilities::PQ) must refuse them.
    pub fn pq(&self, channel: Box<dyn DmaChannel>) {
        let mut client = Client::new(self, channel);
        if !client.can(OperationKind::Pq) {
            refused(&mut client, OperationKind::Pq);
            return client.finish();
        }
        for (index, (count, len)) in shapes(&client, client.info().max_pq).into_iter().enumerate() {
            for given in [(true, true), (true, false), (false, true)] {
                let mut stripe = Stripe::new(&client, count, len, index as u64);
                let what = format!("P and Q {given:?} of {count} sources of {len} bytes");
                let (parity, products) = (stripe.xor(count), stripe.products());
                if given.0 {
                    stripe.p.expect(stripe.at, &parity);
                }
                if given.1 {
                    stripe.q.expect(stripe.at, &products);
                }
                let (sources, (p, q)) = (stripe.pointers(), stripe.syndromes(given));
                let coefficients = &stripe.coefficients;
                let pq = Operation::Pq { sources: &sources, coefficients, p, q, len };
                // SAFETY: all of it lies in the stripe's blocks, which stay until `run` has seen
                // the end.
                let status = unsafe { client.run(&pq, Flags::empty()) };
                assert_eq!(status, Status::Success, "{what}");
                stripe.check(&what);
            }
        }
        client.finish();
    }

    /// Checks of P and Q, both or one of them, that are right, and where P, Q, both, a source or a
    /// coefficient is wrong.
    ///
    /// A channel without [`PQ_VAL`](crate::Capabilities::PQ_VAL) must refuse them.
    pub fn pq_checks(&self, channel: Box<dyn DmaChannel>) {
        let mut client = Client::new(self, channel);
        if !client.can(OperationKind::PqVal) {
            refused(&mut client, OperationKind::PqVal);
            return client.finish();
        }
        for (index, (count, len)) in shapes(&client, client.info().max_pq).into_iter().enumerate() {
            let mut stripe = Stripe::new(&client, count, len, index as u64);
            // A source that is multiplied by 0 is not in Q.
            stripe.coefficients.iter_mut().for_each(|coefficient| *coefficient |= 2);
            let (parity, products) = (stripe.xor(count), stripe.products());
            stripe.p.write(stripe.at, &parity);
            stripe.q.write(stripe.at, &products);
            for given in [(true, true), (true, false), (false, true)] {
                check_pq(&mut client, &mut stripe, given, index);
            }
            stripe.check(&format!("the checks of P and Q of {count} sources of {len} bytes"));
        }
        client.finish();
    }
}

/// Checks the stripe, which is right, and with each kind of mistake.
fn check_pq(client: &mut Client, stripe: &mut Stripe, given: (bool, bool), index: usize) {
    let (sources, (p, q)) = (stripe.pointers(), stripe.syndromes(given));
    let (count, len, at) = (sources.len(), stripe.len, stripe.at);
    let what = format!("the check of P and Q {given:?} of {count} sources of {len} bytes");
    let mut check = |coefficients: &[u8], (wrong_p, wrong_q): (bool, bool), how: &str| {
        let check = Operation::PqVal { sources: &sources, coefficients, p, q, len };
        // SAFETY: all of it lies in the stripe's blocks, which stay until `run` has seen the end.
        let status = unsafe { client.run(&check, Flags::empty()) };
        let expected = match (wrong_p && given.0, wrong_q && given.1) {
            (false, false) => Status::Success,
            (true, false) => Status::MismatchP,
            (false, true) => Status::MismatchQ,
            (true, true) => Status::MismatchPq,
        };
        assert_eq!(status, expected, "{what}, {how}");
    };
    let right = stripe.coefficients.clone();
    check(&right, (false, false), "all right");
    for (turn, place) in wrong_places(len).into_iter().enumerate() {
        let bit = index + turn;
        flip(&mut stripe.p, at + place, bit);
        check(&right, (true, false), "P wrong");
        flip(&mut stripe.q, at + place, bit);
        check(&right, (true, true), "P and Q wrong");
        flip(&mut stripe.p, at + place, bit);
        check(&right, (false, true), "Q wrong");
        flip(&mut stripe.q, at + place, bit);
        let source = stripe.offsets[bit % count] + place;
        flip(&mut stripe.sources, source, bit);
        check(&right, (true, true), "a source wrong");
        flip(&mut stripe.sources, source, bit);
    }
    // Of the last source, which has a byte that is not 0: the bytes are random.
    if stripe.source(count - 1).iter().any(|&byte| byte != 0) {
        let mut wrong = right;
        wrong[count - 1] ^= 4;
        check(&wrong, (false, true), "a coefficient wrong");
    }
}

/// Turns a bit of a byte over.
fn flip(block: &mut Block, place: usize, bit: usize) {
    let byte = block.expected(place..place + 1)[0];
    block.write(place, &[byte ^ (1 << (bit % 8))]);
}

/// An operation that the channel does not have.
#[track_caller]
fn refused(client: &mut Client, kind: OperationKind) {
    let len = client.fitting(64, 1);
    let stripe = Stripe::new(client, 1, len, 0);
    let (sources, (p, q)) = (stripe.pointers(), stripe.syndromes((true, true)));
    let (sources, coefficients) = (&sources[..], &stripe.coefficients[..]);
    let operation = match kind {
        OperationKind::Xor => Operation::Xor { sources, target: stripe.p.at(stripe.at), len },
        OperationKind::XorVal => Operation::XorVal { sources, len },
        OperationKind::Pq => Operation::Pq { sources, coefficients, p, q, len },
        OperationKind::PqVal => Operation::PqVal { sources, coefficients, p, q, len },
        _ => unreachable!("{kind} is no parity operation"),
    };
    let refusal = SubmitError::Unsupported { operation: kind };
    // SAFETY: all of it lies in the stripe's blocks; if it is taken, `refuse` panics and they are
    // leaked.
    unsafe { client.refuse(&operation, Flags::empty(), refusal) };
    stripe.check("an operation that was refused");
}
