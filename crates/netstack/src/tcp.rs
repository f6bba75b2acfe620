//! TCP.

mod error;
mod info;

pub use error::{
    ConnectError, ConnectState, ConnectionError, ListenError, ReceiveStatus, SendError,
};
pub use info::{TcpInfo, TcpState};
