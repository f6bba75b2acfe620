//! The suite of errors, over engines that fail to order.
//!
//! It asks for more than [`DmaChannel`] promises: no garbage is left behind. So all plans are tidy.

use crate::{
    Arena, CpuDevice, DmaChannel, DmaDevice, Fault, FaultPlan, Faults, Layer, Split, Status,
    ThreadsDevice, When,
    conformance::{self, Failure},
};

/// All that a plan can order.
const STATUSES: [Status; 9] = [
    Status::Aborted,
    Status::NotAttempted,
    Status::ReadError,
    Status::WriteError,
    Status::BadAddress,
    Status::BadLength,
    Status::BadDescriptor,
    Status::TimedOut,
    Status::DeviceLost,
];

/// Runs the suite on `engine` with faults, each made of a status by `fault` and added to `plan`.
fn check(
    engine: &dyn DmaDevice,
    statuses: &[Status],
    plan: &FaultPlan,
    fault: impl Fn(Status) -> Fault,
    over: impl Fn(Box<dyn DmaChannel>) -> Box<dyn DmaChannel>,
) {
    let arena = Arena::new(conformance::ARENA_LEN).unwrap();
    let failing = |failures: &[Failure]| {
        let add = |plan: FaultPlan, &Failure { index, status }: &Failure| {
            plan.with(When::at(index + 1), fault(status))
        };
        let plan = failures.iter().fold(plan.clone(), add);
        over(Faults::new(plan).wrap(engine.request_channel(0).unwrap()))
    };
    conformance::errors(statuses, failing, &arena);
}

fn plan(text: &str) -> FaultPlan {
    text.parse().unwrap()
}

#[test]
#[cfg_attr(miri, ignore = "hours: the suite looks at every byte")]
fn failures_in_order_and_out_of_order() {
    let engines: [&dyn DmaDevice; 2] = [&CpuDevice::new(1), &ThreadsDevice::new(1)];
    for engine in engines {
        for text in [
            "tidy,poison",
            "tidy,partial,fence=done",
            "tidy,fence=not-attempted,delay=2",
            "tidy,reorder,poison",
        ] {
            check(engine, &STATUSES, &plan(text), Fault::Fail, |channel| channel);
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "hours: the suite looks at every byte")]
fn halts() {
    let engines: [&dyn DmaDevice; 2] = [&CpuDevice::new(1), &ThreadsDevice::new(1)];
    for engine in engines {
        check(engine, &STATUSES, &plan("tidy,poison"), Fault::Halt, |channel| channel);
    }
}

#[test]
#[cfg_attr(miri, ignore = "hours: the suite looks at every byte")]
fn failures_below_a_shared_channel() {
    let engines: [&dyn DmaDevice; 2] = [&CpuDevice::new(1), &ThreadsDevice::new(1)];
    for engine in engines {
        for text in ["tidy,poison", "tidy,reorder,poison,partial"] {
            // With copies that the engine gets whole: the failures are counted there.
            let split = Split::default();
            let statuses = [Status::WriteError, Status::DeviceLost];
            check(engine, &statuses, &plan(text), Fault::Fail, |channel| split.wrap(channel));
        }
    }
}
