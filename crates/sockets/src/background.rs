//! The thread that serves packets and timers while no program thread does.

use std::{
    sync::{Arc, MutexGuard, PoisonError},
    time::Duration,
};

use netstack::Instant;

use crate::{
    core::{Core, Driver},
    driver::Shared,
};

/// After a program thread left its call, it has this long to come back before the background thread
/// takes over: shorter than a delayed ACK (40 ms), far longer than a program needs between two
/// reads of a stream.
const GRACE: Duration = Duration::from_millis(5);

/// After the last handle is gone, connections have this long to deliver what was written and close.
const LINGER: Duration = Duration::from_secs(1);

/// Runs until the last handle is gone and its connections have closed, or [`LINGER`] has passed.
pub(crate) fn run(shared: &Arc<Shared>) {
    let mut core = shared.lock();
    while !core.closing {
        core = match core.driver {
            Driver::Background => turn(shared, core, None),
            Driver::Nobody | Driver::Program => stand_by(shared, core),
        };
    }
    let until = shared.now() + LINGER;
    core.driver = Driver::Background;
    while core.stack.has_undelivered() && shared.now() < until {
        core = turn(shared, core, Some(until));
    }
}

fn turn<'a>(
    shared: &'a Shared,
    mut core: MutexGuard<'a, Core>,
    until: Option<Instant>,
) -> MutexGuard<'a, Core> {
    if core.turn(shared.now()) {
        // Let a thread that waits for the lock have it.
        drop(core);
        return shared.lock();
    }
    shared.block(core, until)
}

/// Waits until nobody has driven for [`GRACE`], then takes over.
fn stand_by<'a>(shared: &'a Shared, core: MutexGuard<'a, Core>) -> MutexGuard<'a, Core> {
    let turns = core.turns;
    let (mut core, _) =
        shared.background.wait_timeout(core, GRACE).unwrap_or_else(PoisonError::into_inner);
    if core.turns != turns || core.closing {
        return core;
    }
    match core.driver {
        Driver::Nobody => core.driver = Driver::Background,
        Driver::Background => {}
        Driver::Program => {
            // It sits in `poll(2)`: there is nothing to watch until it leaves.
            core.background_asleep = true;
            core = shared.background.wait(core).unwrap_or_else(PoisonError::into_inner);
            core.background_asleep = false;
        }
    }
    core
}
