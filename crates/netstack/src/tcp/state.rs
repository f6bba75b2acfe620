use super::TcpState;

/// The states in which both SYNs are acknowledged (RFC 9293 section 3.3.2), as far as they depend
/// on who has closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Synchronized {
    Established,
    FinWait1,
    FinWait2,
    CloseWait,
    Closing,
    LastAck,
}

/// What follows a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Another of these states, or the same.
    State(Synchronized),
    TimeWait,
    Closed,
}

impl Synchronized {
    /// The program has closed the sending side.
    pub(crate) const fn on_close(self) -> Self {
        match self {
            Self::Established => Self::FinWait1,
            Self::CloseWait => Self::LastAck,
            Self::FinWait1 | Self::FinWait2 | Self::Closing | Self::LastAck => self,
        }
    }

    /// The peer has acknowledged our FIN.
    pub(crate) const fn on_fin_acknowledged(self) -> Next {
        match self {
            Self::FinWait1 => Next::State(Self::FinWait2),
            Self::Closing => Next::TimeWait,
            Self::LastAck => Next::Closed,
            Self::Established | Self::FinWait2 | Self::CloseWait => Next::State(self),
        }
    }

    /// The peer's FIN has been reached in order.
    pub(crate) const fn on_fin(self) -> Next {
        match self {
            Self::Established => Next::State(Self::CloseWait),
            Self::FinWait1 => Next::State(Self::Closing),
            Self::FinWait2 => Next::TimeWait,
            Self::CloseWait | Self::Closing | Self::LastAck => Next::State(self),
        }
    }

    /// Whether the program has closed, and the peer has not acknowledged that yet.
    pub(crate) const fn awaits_fin_ack(self) -> bool {
        matches!(self, Self::FinWait1 | Self::Closing | Self::LastAck)
    }

    /// Whether the program has closed, and the peer has not.
    pub(crate) const fn awaits_fin(self) -> bool {
        matches!(self, Self::FinWait1 | Self::FinWait2)
    }

    /// Whether the program may still send.
    pub(crate) const fn can_send(self) -> bool {
        matches!(self, Self::Established | Self::CloseWait)
    }
}

impl From<Synchronized> for TcpState {
    fn from(state: Synchronized) -> Self {
        match state {
            Synchronized::Established => Self::Established,
            Synchronized::FinWait1 => Self::FinWait1,
            Synchronized::FinWait2 => Self::FinWait2,
            Synchronized::CloseWait => Self::CloseWait,
            Synchronized::Closing => Self::Closing,
            Synchronized::LastAck => Self::LastAck,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Synchronized::{CloseWait, Closing, Established, FinWait1, FinWait2, LastAck};

    #[test]
    fn the_diagram_of_rfc_9293() {
        assert_eq!(Established.on_close(), FinWait1);
        assert_eq!(FinWait1.on_fin_acknowledged(), Next::State(FinWait2));
        assert_eq!(FinWait2.on_fin(), Next::TimeWait);
        assert_eq!(FinWait1.on_fin(), Next::State(Closing));
        assert_eq!(Closing.on_fin_acknowledged(), Next::TimeWait);
        assert_eq!(Established.on_fin(), Next::State(CloseWait));
        assert_eq!(CloseWait.on_close(), LastAck);
        assert_eq!(LastAck.on_fin_acknowledged(), Next::Closed);
        for state in [FinWait1, FinWait2, Closing, LastAck] {
            assert_eq!(state.on_close(), state);
            assert!(!state.can_send());
        }
        assert!(Established.can_send() && CloseWait.can_send());
    }
}
