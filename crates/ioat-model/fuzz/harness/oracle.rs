//! What must hold, told from the outside: by the table of states, and by what descriptors say.

use ioat_model::{
    Model, State, Version,
    registers::{CHANNEL_BLOCK, Width, channel, channel_v1},
};

/// What was done to the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// A register write to a channel: the offset in its block, and the value.
    Write(u64, Width, u64),
    /// Something that does nothing to a channel.
    Other,
    /// Descriptors were fetched.
    Fetch,
    /// A descriptor of the channel was retired, or time has passed.
    End,
    /// Configuration space was written, which may have reset the function.
    Configure,
}

fn state(status: u64) -> State {
    let all = [State::Active, State::Done, State::Suspended, State::Halted, State::Armed];
    let found = all.into_iter().find(|state| *state as u64 == status & 7);
    found.unwrap_or_else(|| panic!("CHANSTS has no such state: {status:#x}"))
}

/// What CHANSTS said, and what is in hand.
#[derive(Clone, Debug)]
pub(crate) struct Watched {
    state: State,
    completed: u64,
    /// The descriptor in hand; its words.
    pub(crate) in_hand: Option<(u64, Vec<u64>)>,
}

impl Watched {
    pub(crate) fn new() -> Self {
        Self { state: State::Halted, completed: 0, in_hand: None }
    }

    /// A descriptor was fetched. One that is still in hand is its own successor: its completion did
    /// not show.
    pub(crate) fn take(&mut self, address: u64, words: Vec<u64>) {
        let before = self.in_hand.replace((address, words));
        let unseen = before.is_none_or(|(address, _)| address == self.completed);
        assert!(unseen, "two descriptors are in hand");
    }

    /// Looks at the channel after an action that meant it (or not).
    pub(crate) fn check(&mut self, status: u64, version: Version, action: Action) {
        let (before, after) = (self.state, state(status));
        assert!(
            may_follow(before, after, version, action),
            "{before:?} -> {after:?} after {action:x?} of version {version}"
        );
        let completed = status & !0x3f;
        if completed != self.completed {
            let in_hand = self.in_hand.as_ref().map(|(address, _)| *address);
            if action == Action::End && in_hand == Some(completed) {
                self.in_hand = None;
            } else {
                assert_eq!(
                    completed, 0,
                    "what is completed was in hand: {in_hand:x?}, {action:x?}"
                );
                let begun = matches!(after, State::Halted | State::Armed);
                assert!(begun || version == Version::V1_2 && after == State::Active, "forgotten");
                self.in_hand = None;
            }
        }
        // Halted, reset or begun anew: what was in hand is not completed any more.
        if after == State::Halted || after == State::Armed {
            self.in_hand = None;
        }
        self.completed = completed;
        self.state = after;
    }
}

/// The table of the module `channel`, for one channel.
fn may_follow(before: State, after: State, version: Version, action: Action) -> bool {
    use State::{Active, Armed, Done, Halted, Suspended};
    if before == after {
        return true;
    }
    let chains = version == Version::V1_2;
    match action {
        Action::Other => false,
        // RESUME and DMACOUNT lead to DONE or ACTIVE; the end of a descriptor anywhere but ARMED. In
        // version 1.2 a chain may turn out not to have been appended to.
        Action::Fetch => before == Active && (after == Halted || chains && after == Done),
        Action::End => {
            // A slow RESET ends in HALTED whatever there was.
            after == Halted || before == Active && matches!(after, Done | Suspended)
        }
        Action::Configure => after == Halted,
        Action::Write(offset, width, value) => {
            let command = if chains { channel_v1::CHANCMD } else { channel::CHANCMD };
            if offset == command && width == Width::W8 {
                return match (value as u8, before, after) {
                    (0, ..) => false,
                    (0x04, Active | Done, Suspended) => true,
                    (0x04, ..) => false,
                    (0x10, Suspended, Active | Done) => true,
                    (0x10, ..) => false,
                    (0x08, Active | Done, Halted) => true,
                    (0x08, ..) => false,
                    (0x01, Halted | Suspended, Active) => chains,
                    (0x02, Done, Active) => chains,
                    (0x01 | 0x02, _, Halted) => !chains,
                    (0x01 | 0x02, ..) => false,
                    // RESET, or what is no command.
                    (_, _, Halted) => true,
                    _ => false,
                };
            }
            if chains {
                return false;
            }
            let chain_high = offset == channel::CHAINADDR + 4 && width == Width::W32
                || offset == channel::CHAINADDR && width == Width::W64;
            if chain_high {
                return matches!(before, Halted | Suspended) && after == Armed;
            }
            let count = offset == channel::DMACOUNT && width == Width::W16;
            count && matches!(before, Armed | Done) && after == Active
        }
    }
}

/// CHANSTS of each channel.
pub(crate) fn statuses(model: &mut Model, version: Version) -> Vec<u64> {
    let register = if version == Version::V1_2 { channel_v1::CHANSTS } else { channel::CHANSTS };
    (0..model.channels() as u64)
        .map(|index| model.mmio_read(CHANNEL_BLOCK * (index + 1) + register, Width::W64))
        .collect()
}

/// CHANCMP of each channel.
pub(crate) fn completion_addresses(model: &mut Model) -> Vec<u64> {
    (0..model.channels() as u64)
        .map(|index| model.mmio_read(CHANNEL_BLOCK * (index + 1) + channel::CHANCMP, Width::W64))
        .collect()
}

/// Whether a descriptor of these words may write there.
pub(crate) fn may_write(words: &[u64], address: u64, len: u64) -> bool {
    const DEST_BRK: u64 = 1 << 7;
    const P_DISABLE: u64 = 1 << 11;
    const Q_DISABLE: u64 = 1 << 12;
    let (size, control, op) = (words[0] & 0xffff_ffff, words[0] >> 32 & 0xff_ffff, words[0] >> 56);
    let within = |start: u64, size: u64| {
        address.checked_sub(start).is_some_and(|offset| offset + len <= size)
    };
    match op {
        0x00 | 0x01 if control & DEST_BRK != 0 => {
            let first = 4096 - words[2] % 4096;
            within(words[2], first.min(size)) || within(words[5], size.saturating_sub(first))
        }
        0x00 if control & 0x20 != 0 => false,
        0x00 | 0x01 | 0x87 => within(words[2], size),
        0x89 | 0x8b | 0xa0 => {
            control & P_DISABLE == 0 && within(words[2], size)
                || control & Q_DISABLE == 0 && within(words[7], size)
        }
        _ => false,
    }
}
