mod defects;
mod toy;

use self::toy::{AfterFailure, Toys};
use super::*;
use crate::{
    Addressing, Capabilities, Cookie, CpuDevice, Fallback, FaultPlan, Faults, Layer, OperationKind,
    Ordering, Split, ThreadsDevice, ThreadsOptions,
};

fn check(device: &dyn DmaDevice) {
    super::device(device, &Arena::new(ARENA_LEN).unwrap());
}

#[test]
#[cfg_attr(miri, ignore = "hours: the suite looks at every byte")]
fn cpu() {
    check(&CpuDevice::new(2));
}

#[test]
#[cfg_attr(miri, ignore = "hours: the suite looks at every byte")]
fn threads() {
    check(&ThreadsDevice::new(3));
}

#[test]
#[cfg_attr(miri, ignore = "hours: the suite looks at every byte")]
fn threads_that_always_sleep_behind_a_tiny_ring() {
    let spin = Duration::ZERO;
    check(&ThreadsDevice::with_options(ThreadsOptions { channels: 2, ring_size: 8, spin }));
}

#[test]
#[cfg_attr(miri, ignore = "hours: the suite looks at every byte")]
fn threads_behind_a_ring_of_one() {
    let options = ThreadsOptions { channels: 1, ring_size: 1, ..ThreadsOptions::default() };
    check(&ThreadsDevice::with_options(options));
}

/// What the contract leaves open must pass.
fn check_toys(change: impl Fn(&mut Toys)) {
    let arena = Arena::new(ARENA_LEN).unwrap();
    let mut toys = Toys::new(&arena);
    change(&mut toys);
    all(|| toys.channel(&[]), &arena);
    Suite::new(&arena).clients((0..3).map(|_| toys.channel(&[])).collect());
    let statuses = [
        Status::ReadError,
        Status::WriteError,
        Status::BadAddress,
        Status::NotAttempted,
        Status::Aborted,
    ];
    for after_failure in
        [AfterFailure::GoOn, AfterFailure::Abort, AfterFailure::DoNotAttempt, AfterFailure::GoDown]
    {
        toys.after_failure = after_failure;
        errors(&statuses, |failures| toys.channel(failures), &arena);
    }
}

#[test]
#[cfg_attr(miri, ignore = "hours: the suite looks at every byte")]
fn an_engine_in_order() {
    check_toys(|_| ());
}

#[test]
#[cfg_attr(miri, ignore = "hours: the suite looks at every byte")]
fn an_engine_out_of_order_with_partial_completion() {
    check_toys(|toys| {
        toys.info.ordering = Ordering::OutOfOrder;
        toys.info.partial_completion = true;
    });
}

#[test]
#[cfg_attr(miri, ignore = "hours: the suite looks at every byte")]
fn an_engine_with_descriptors_of_lists_and_second_ones_for_many_sources() {
    let change = |toys: &mut Toys| {
        toys.descriptors = |kind, pieces| match kind {
            OperationKind::MemcpySg => 1,
            OperationKind::Memcpy | OperationKind::Memset => pieces,
            _ => 2 * pieces + 1,
        };
    };
    check_toys(change);
    // Layers that count descriptors know what the engine below has taken.
    let arena = Arena::new(ARENA_LEN).unwrap();
    let mut toys = Toys::new(&arena);
    change(&mut toys);
    let layers: [&dyn Layer; 2] = [&Split::new(1 << 14), &Faults::new(FaultPlan::default())];
    for layer in layers {
        all(|| layer.wrap(toys.channel(&[])), &arena);
    }
}

#[test]
#[cfg_attr(miri, ignore = "hours: the suite looks at every byte")]
fn an_engine_that_copies_and_nothing_else() {
    check_toys(|toys| {
        toys.info.capabilities = Capabilities::MEMCPY;
        toys.info.ring_size = 2;
    });
}

#[test]
#[cfg_attr(miri, ignore = "hours: the suite looks at every byte")]
fn an_engine_of_aligned_lines_and_iovas() {
    check_toys(|toys| {
        toys.info.alignment = 64.try_into().unwrap();
        toys.info.xfercap = 64.try_into().unwrap();
        toys.info.addressing = Addressing::Iova;
        (toys.info.max_sg, toys.info.max_xor, toys.info.max_pq) = (1, 1, 1);
    });
}

#[test]
#[cfg_attr(miri, ignore = "hours: the suite looks at every byte")]
fn an_engine_of_tiny_pieces_and_long_lists() {
    check_toys(|toys| {
        toys.info.xfercap = 16.try_into().unwrap();
        toys.info.ring_size = 64;
        (toys.info.max_sg, toys.info.max_xor, toys.info.max_pq) = (16, 16, 16);
    });
}

/// Each channel's cookies wrap with its fifth operation. A client, and a layer, sees nothing of it.
#[test]
#[cfg_attr(miri, ignore = "hours: the suite looks at every byte")]
fn engines_whose_cookies_wrap() {
    const FIRST: Cookie = Cookie::new(u64::MAX - 3);

    check_toys(|toys| toys.first = FIRST);
    check_toys(|toys| {
        toys.first = FIRST;
        toys.info.ordering = Ordering::OutOfOrder;
    });
    let arena = Arena::new(ARENA_LEN).unwrap();
    let mut toys = Toys::new(&arena);
    toys.first = FIRST;
    let layers: [&dyn Layer; 3] =
        [&Split::new(1 << 14), &Faults::new(FaultPlan::default()), &Fallback::default()];
    for ordering in [Ordering::InOrder, Ordering::OutOfOrder] {
        toys.info.ordering = ordering;
        for layer in layers {
            all(|| layer.wrap(toys.channel(&[])), &arena);
        }
    }
}
