use std::{
    io::{self, Read},
    net::{Ipv4Addr, SocketAddrV4},
    sync::Arc,
    time::Duration,
};

use sockets::TcpListener;

use super::{Copied, PeerNamespace, Receiver};
use crate::host::Host;

const PORT: u16 = 9000;

/// How long to wait for the sender, and for bytes.
const PATIENCE: Duration = Duration::from_secs(20);

/// A stack of ours, listening.
#[derive(Debug)]
pub struct StackReceiver {
    listener: TcpListener,
    host: Host,
}

impl StackReceiver {
    /// Listens at `address`, which is the host's.
    ///
    /// # Errors
    ///
    /// See [`TcpListener::bind`].
    pub fn listen(host: Host, address: Ipv4Addr) -> io::Result<Self> {
        let listener = TcpListener::bind(host.stack(), SocketAddrV4::new(address, PORT))?;
        Ok(Self { listener, host })
    }
}

impl Receiver for StackReceiver {
    fn address(&self) -> SocketAddrV4 {
        self.listener.local_addr()
    }

    fn sender_namespace(&self) -> Option<Arc<PeerNamespace>> {
        None
    }

    fn accept(&self) -> io::Result<Box<dyn Read + '_>> {
        let (stream, _) = self.listener.accept_timeout(PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Box::new(stream))
    }

    fn copied(&self) -> Option<Copied> {
        let offload = self.host.stack().statistics().offload;
        Some(Copied {
            by_engine: offload.bytes_by_engine,
            by_cpu: offload.bytes_by_cpu_total(),
            engine_cpu: self.host.device().cpu_time().unwrap_or_default(),
        })
    }
}
