//! What calls fail with: the error numbers that Linux has for it.

use std::io;

use netstack::{ConnectError, ConnectionError, ListenError};
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
