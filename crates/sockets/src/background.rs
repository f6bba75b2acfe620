//! The thread that serves packets and timers while no program thread does.

use std::{
    sync::{Arc, atomic::Ordering},
    thread,
    time::Duration,
};

use netstack::Instant;
use parking_lot::MutexGuard;

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

/// Runs until the last handle is gone and what was written is delivered, or [`LINGER`] has passed.
pub(crate) fn run(shared: &Arc<Shared>) {
    // The only place where it is set.
    let _unset = shared.background.set(thread::current());
    // Acquire: pairs with the release in `Handle::drop`; the lock orders the rest.
    while !shared.closing.load(Ordering::Acquire) {
        if let Some(core) = stand_by(shared) {
            drive(shared, core);
        }
    }
    let until = shared.now() + LINGER;
    let mut core = shared.lock();
    core.driver = Driver::Background;
    while core.stack.has_undelivered() && core.check_link().is_ok() && shared.now() < until {
        turn(shared, &mut core, Some(until));
    }
}

/// Waits for [`GRACE`]; if nobody drove meanwhile, takes over and returns the shard. Does not touch
/// the lock while programs drive: whoever waits for it makes its holder's unlock a system call.
fn stand_by(shared: &Shared) -> Option<MutexGuard<'_, Core>> {
    // Who waits outside of calls does not drive: there is nobody to give a chance to.
    if !shared.is_watched() {
        // Relaxed, both: a hint; the lock decides.
        let turns = shared.turns.load(Ordering::Relaxed);
        thread::park_timeout(GRACE);
        if shared.turns.load(Ordering::Relaxed) != turns && !shared.is_watched() {
            return None;
        }
    }
    let mut core = shared.lock();
    match core.driver {
        Driver::Nobody | Driver::Background => {
            core.driver = Driver::Background;
            Some(core)
        }
        Driver::Program => {
            // It sits in `poll(2)`: there is nothing to watch until it leaves, and says so.
            core.sleeping_background = Some(thread::current());
            drop(core);
            thread::park();
            None
        }
    }
}

/// Drives until a program thread takes over, or the last handle is gone.
fn drive(shared: &Shared, mut core: MutexGuard<'_, Core>) {
    // Acquire: as in `run`.
    while core.driver == Driver::Background && !shared.closing.load(Ordering::Acquire) {
        turn(shared, &mut core, None);
    }
}

fn turn(shared: &Shared, core: &mut MutexGuard<'_, Core>, until: Option<Instant>) {
    if !shared.turn(core) {
        shared.block(core, None, until);
    }
}
