//! A clock of the work, by which things cost what the test says.

use std::{cell::Cell, time::Duration};

/// What passes between two looks at the clock.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Costs {
    /// If the engine was not used meanwhile.
    pub(crate) cpu: Duration,
    /// For each copy that it was given.
    pub(crate) submit: Duration,
    /// If it was looked at.
    pub(crate) poll: Duration,
}

thread_local! {
    static COSTS: Cell<Costs> = Cell::default();
    static NOW: Cell<Duration> = Cell::default();
    static SPENT: Cell<Option<Duration>> = const { Cell::new(None) };
    static LOOKS: Cell<u64> = const { Cell::new(0) };
}

/// Sets what things cost from now on.
pub(crate) fn set(costs: Costs) {
    COSTS.set(costs);
}

/// How often the clock was looked at.
pub(crate) fn looks() -> u64 {
    LOOKS.get()
}

/// The clock.
pub(crate) fn now() -> Duration {
    LOOKS.set(LOOKS.get() + 1);
    NOW.set(NOW.get() + SPENT.take().unwrap_or_else(|| COSTS.get().cpu));
    NOW.get()
}

/// The engine is given a copy.
pub(crate) fn on_submit() {
    spend(COSTS.get().submit);
}

/// The engine is looked at.
pub(crate) fn on_poll() {
    spend(COSTS.get().poll);
}

fn spend(cost: Duration) {
    SPENT.set(Some(SPENT.get().unwrap_or_default() + cost));
}
