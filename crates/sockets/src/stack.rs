use std::{
    fmt, io,
    sync::{Arc, atomic::Ordering},
    thread::{self, JoinHandle},
    time::Duration,
};

use dmaengine::{Channel, ChannelStats};
use netdev::Link;
use netdma::{Copybreak, Counters, Decision, Offload, PolicyRow, WorkClock};
use netstack::TcpConfig;
use rustix::time::{ClockId, clock_gettime};

use crate::{
    Config, Interrupter, StartError, background,
    core::{Core, Kicks},
    driver::{Call, Shared},
};

/// A TCP/IP stack over one link. Handles are cheap to clone; listeners and streams hold one each.
///
/// When the last handle is gone the stack delivers what was written, closes its connections for at
/// most a second, and is gone.
#[derive(Clone)]
pub struct Stack {
    handle: Arc<Handle>,
}

/// Everything that a stack counts, and what it holds at this moment.
#[derive(Clone, Debug)]
pub struct Statistics {
    /// The protocols' counters.
    pub protocols: netstack::Statistics,
    /// The receive copy offload's counters.
    pub offload: Counters,
    /// The counters of the engine's channel, if there is one. They go on counting.
    pub engine: Option<Arc<ChannelStats>>,
    /// Bytes of packet memory that all sockets hold now: what is unread, and what is being copied.
    pub receive_charged: usize,
    /// Bytes that the engine was given and has not copied yet.
    pub bytes_in_flight: usize,
}

struct Handle {
    shared: Arc<Shared>,
    background: Option<JoinHandle<()>>,
}

impl Stack {
    /// Starts a stack on `link`. Its receive copies go to `engine`, if there is one; packets that
    /// the link receives, and the buffers that are read into, must be in arenas that the engine can
    /// reach, or the CPU copies.
    ///
    /// # Errors
    ///
    /// See [`StartError`].
    pub fn start(
        link: Box<dyn Link>,
        engine: Option<Channel>,
        config: &Config,
    ) -> Result<Self, StartError> {
        let Config { mac, address, gateway, tcp, copybreak } = config.clone();
        let info = link.info();
        let link_capabilities = netstack::LinkCapabilities {
            mtu: info.mtu,
            checksum_offload: info.checksum_offload,
            tso_max: info.tso_max,
        };
        // What programs leave unread must not use up the link's buffers: a quarter stays for what is
        // under way.
        let receive_memory = tcp.receive_memory.min(info.receive_memory / 4 * 3);
        let tcp = TcpConfig { receive_memory, ..tcp };
        let mut seed = [0; 16];
        rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::empty())
            .map_err(io::Error::from)?;
        let stack = netstack::Stack::new(netstack::Config {
            mac,
            address,
            gateway,
            link: link_capabilities,
            tcp,
            seed,
        })?;
        let offload = Offload::new(engine, copybreak).timed_by(WorkClock::Running(monotonic));
        let offload = offload.reading_by(read_lines);
        let core = Core::new(stack, offload, link, Arc::new(Kicks::new()?));
        let shared = Arc::new(Shared::new(core)?);
        let background = thread::Builder::new().name("ioat-stack".into()).spawn({
            let shared = shared.clone();
            move || background::run(&shared)
        })?;
        Ok(Self { handle: Arc::new(Handle { shared, background: Some(background) }) })
    }

    /// Sets which reads are offloaded from now on, of streams that have no
    /// [copybreak of their own](crate::TcpStream::set_tcp_dma_copybreak).
    pub fn set_tcp_dma_copybreak(&self, copybreak: Copybreak) {
        self.handle.shared.lock().offload.set_copybreak(copybreak);
    }

    /// Which reads are offloaded.
    #[must_use]
    pub fn tcp_dma_copybreak(&self) -> Copybreak {
        self.handle.shared.lock().offload.copybreak()
    }

    /// What [`Copybreak::Auto`] has learned, and what it has decided last.
    #[must_use]
    pub fn policy(&self) -> Policy {
        let core = self.handle.shared.lock();
        let offload = &core.offload;
        Policy { rows: offload.policy().collect(), last: offload.last_decisions().collect() }
    }

    /// Everything counted so far.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        let core = self.handle.shared.lock();
        Statistics {
            protocols: core.stack.statistics().clone(),
            offload: *core.offload.counters(),
            engine: core.offload.engine().map(|engine| engine.stats().clone()),
            receive_charged: core.stack.receive_memory_charged(),
            bytes_in_flight: core.offload.bytes_in_flight(),
        }
    }

    /// What interrupts the calls that this thread makes, as a signal would.
    #[must_use]
    pub fn interrupter(&self) -> Interrupter {
        Interrupter::new(self)
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.handle.shared
    }

    /// Whether both are handles of one stack.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.handle, &other.handle)
    }

    pub(crate) fn call(&self) -> Call<'_> {
        Call::enter(&self.handle.shared)
    }
}

/// What [`Copybreak::Auto`] knows.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Of each kind of receive that has occurred.
    pub rows: Vec<PolicyRow>,
    /// The last decisions, the oldest first.
    pub last: Vec<Decision>,
}

/// How copies are timed.
fn monotonic() -> Duration {
    let now = clock_gettime(ClockId::Monotonic);
    // It has run since the system was started, and a second has fewer nanoseconds than 2^32.
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec as u32)
}

/// Reads a byte of each cache line; how long that took.
fn read_lines(bytes: &[u8]) -> Duration {
    const CACHE_LINE: usize = 64;
    let start = monotonic();
    for line in bytes.chunks(CACHE_LINE) {
        std::hint::black_box(line[0]);
    }
    monotonic() - start
}

impl fmt::Debug for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stack").finish_non_exhaustive()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // Release: pairs with the background thread's acquire.
        self.shared.closing.store(true, Ordering::Release);
        self.shared.lock().kick_driver();
        if let Some(background) = self.background.take() {
            background.thread().unpark();
            if background.thread().id() == thread::current().id() {
                // The last handle was a task's, and went when the task was woken. The thread ends
                // when it is back.
                return;
            }
            // It panicked: its message is on standard error, and there is nothing left to stop.
            let _panicked = background.join();
        }
    }
}
