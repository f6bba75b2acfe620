//! What calls fail with: the error numbers that Linux has for it.

use std::io;

use netdma::RecvError;
use netstack::{ConnectError, ConnectionError, ListenError, UrgentError};
pub(crate) use rustix::io::Errno;

pub(crate) const fn of_connection(error: ConnectionError) -> Errno {
    match error {
        ConnectionError::Refused => Errno::CONNREFUSED,
        ConnectionError::Reset => Errno::CONNRESET,
        ConnectionError::BrokenPipe => Errno::PIPE,
        ConnectionError::TimedOut => Errno::TIMEDOUT,
        ConnectionError::HostUnreachable => Errno::HOSTUNREACH,
        ConnectionError::NotOpen => Errno::NOTCONN,
    }
}

pub(crate) const fn of_urgent(error: UrgentError) -> Errno {
    match error {
        UrgentError::Nothing => Errno::INVAL,
        UrgentError::NotArrived => Errno::AGAIN,
        UrgentError::NotConnected => Errno::NOTCONN,
    }
}

/// Why nothing was received. If the link is gone, that is why a call need not wait.
pub(crate) fn of_recv(error: RecvError, link: io::Result<()>) -> io::Error {
    match error {
        RecvError::WouldBlock => link.err().unwrap_or_else(|| Errno::AGAIN.into()),
        RecvError::Interrupted => Errno::INTR.into(),
        RecvError::Connection(error) => of_connection(error).into(),
    }
}

/// The addresses in these are worth telling, so the kind stands for the number.
pub(crate) fn of_connect(error: ConnectError) -> io::Error {
    let kind = match error {
        ConnectError::AddressNotAvailable(_) | ConnectError::PortsExhausted(_) => {
            io::ErrorKind::AddrNotAvailable
        }
        ConnectError::NetworkUnreachable(_) => io::ErrorKind::NetworkUnreachable,
    };
    io::Error::new(kind, error)
}

pub(crate) fn of_listen(error: ListenError) -> io::Error {
    let kind = match error {
        ListenError::AddressInUse(_) | ListenError::PortsExhausted => io::ErrorKind::AddrInUse,
        ListenError::AddressNotAvailable(_) => io::ErrorKind::AddrNotAvailable,
    };
    io::Error::new(kind, error)
}
