use std::{
    hint::black_box,
    net::{Ipv4Addr, SocketAddrV4},
    time::Duration,
};

use dmaengine::DmaBuf;
use netdev::{Tap, TapConfig};
use netstack::Ipv4Cidr;
use sockets::Config;

use super::{
    contest::{Error, Settings},
    engine::ReceiveEngine,
    figures::{Figures, LinkKind, Point, Program, Row, Scene},
    generator::{Generator, GeneratorHandle, Station},
};
use crate::{
    host::Host,
    host_side,
    lab::{
        self, Copied, Pattern, Receiver, Sender, SenderConfig, SenderError, Sent, StackReceiver,
        TransferError, receive_stream, thread_preemptions,
    },
    measure::{Measured, Samples},
};

/// Large buffers start at a page, in bytes.
const PAGE: usize = 4096;

/// What Linux sends.
const PATTERN: Pattern = Pattern::new(0x7a9);

/// One of those that take turns, in one scene, with what was measured of it.
pub(super) struct Contestant {
    pub(super) name: String,
    pub(super) kind: &'static str,
    receiver: StackReceiver,
    source: Source,
    buffer: DmaBuf,
    /// Whether it copies at all: `null` does not.
    copies: bool,
    /// Of each point.
    pub(super) figures: Vec<Figures>,
}

/// What sends.
enum Source {
    Generator(GeneratorHandle),
    /// Linux, on this CPU.
    Kernel(Option<usize>),
}

/// One stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn {
    pub(super) measured: Measured,
    pub(super) sender_cpu: Duration,
    pub(super) copied: Copied,
    /// How often the receiver lost its CPU to another program.
    pub(super) preemptions: u64,
}

impl Contestant {
    /// Opens engine, link and stack. `number` tells it from the others.
    pub(super) fn open(
        engine: &ReceiveEngine,
        number: u8,
        scene: Scene,
        settings: &Settings,
        sender_cpu: Option<usize>,
    ) -> Result<Self, Error> {
        let device = engine.open()?;
        let kind = engine.kind(&*device);
        let network = |host| Ipv4Addr::new(10, 79, number, host);
        let address = Ipv4Cidr { address: network(2), prefix_len: 24 };
        let config = Config { copybreak: settings.copybreak, ..Config::new(address) };
        let longest = settings.read_sizes.iter().copied().max().unwrap_or(1);
        // Beside the one for reads those that are posted; each takes whole pages.
        let posted = |len: &usize| lab::Program::posted(*len) * len.next_multiple_of(PAGE);
        let buffer_bytes = longest.next_multiple_of(PAGE)
            + settings.read_sizes.iter().map(posted).max().unwrap_or(0);
        let (host, source) = match scene.link {
            LinkKind::Wire => {
                let there = Station { mac: config.mac.0, address: address.address };
                // Locally administered, as the stack's own.
                let here = Station { mac: [0x02, 0x10, 0, 0, number, 1], address: network(1) };
                let mut handle = None;
                let link_bytes = Generator::arena_len(scene.frame);
                let host = Host::on_link(device, &config, link_bytes, buffer_bytes, |arena| {
                    let (link, its) = Generator::open(arena, scene.frame, here, there)?;
                    handle = Some(its);
                    Ok(Box::new(link))
                })?;
                (host, handle.map(Source::Generator))
            }
            LinkKind::Tap => {
                let tap = TapConfig::new(format!("ioat{number}"));
                let host =
                    Host::on_link(device, &config, tap.arena_len(), buffer_bytes, |arena| {
                        Ok(Box::new(Tap::open(arena, &tap)?))
                    })?;
                host_side::configure(host.interface(), address)?;
                (host, None)
            }
        };
        Ok(Self {
            name: engine.to_string(),
            kind,
            buffer: host.buffer(longest).map_err(crate::host::OpenError::from)?,
            receiver: StackReceiver::listen(host, address.address).map_err(Error::Listen)?,
            source: source.unwrap_or(Source::Kernel(sender_cpu)),
            copies: *engine != ReceiveEngine::Null,
            figures: Vec::new(),
        })
    }

    /// A turn in which every byte is checked, unless nothing copies them.
    pub(super) fn check(&mut self, point: Point, bytes: u64) -> Result<(), Error> {
        self.turn(point, bytes, self.copies).map(|_| ())
    }

    /// A turn that is timed.
    pub(super) fn measure(&mut self, point: Point, bytes: u64) -> Result<Turn, Error> {
        self.turn(point, bytes, false)
    }

    fn turn(&mut self, point: Point, bytes: u64, checked: bool) -> Result<Turn, Error> {
        let Self { name, receiver, source, buffer, .. } = self;
        let buffer = &mut buffer[..point.read_size];
        let account =
            |receiver: &StackReceiver| (receiver.copied(), thread_preemptions().unwrap_or(0));
        let before = account(receiver);
        let Program { mode, touch } = point.program;
        let how = lab::Program { receiver, mode };
        let outcome = source.stream(&how, buffer, touch, bytes, checked);
        let after = account(receiver);
        let (measured, sent) = outcome.map_err(|error| Error::Transfer {
            engine: name.clone(),
            read_size: point.read_size,
            error,
        })?;
        let nothing = Copied { by_engine: 0, by_cpu: measured.bytes, engine_cpu: Duration::ZERO };
        Ok(Turn {
            measured,
            sender_cpu: sent.cpu_time,
            copied: after.0.zip(before.0).map_or(nothing, |(after, before)| after - before),
            preemptions: after.1.saturating_sub(before.1),
        })
    }

    /// The row of the point at `index`.
    pub(super) fn row(
        &self,
        scene: Scene,
        point: Point,
        index: usize,
        cpu: &Self,
        null: Option<&Self>,
    ) -> Row {
        let figures = self.figures[index].clone();
        let receiver = |other: &Self| -> Samples {
            figures.receiver_cpu_s_per_gb.over(&other.figures[index].receiver_cpu_s_per_gb)
        };
        Row {
            scene,
            point,
            engine: self.name.clone(),
            kind: self.kind,
            receiver_over_cpu: receiver(cpu),
            receiver_over_null: null.map(receiver),
            throughput_over_cpu: figures.gb_per_s.over(&cpu.figures[index].gb_per_s),
            figures,
            verified: self.copies,
        }
    }

    /// What `auto` knows of it.
    pub(super) fn policy(&self) -> sockets::Policy {
        self.receiver.policy()
    }

    pub(super) const fn is_null(&self) -> bool {
        !self.copies
    }

    /// How often the generator had to send again.
    pub(super) fn timeouts(&self) -> u64 {
        match &self.source {
            Source::Generator(handle) => handle.timeouts(),
            Source::Kernel(_) => 0,
        }
    }
}

impl Source {
    fn stream(
        &self,
        receiver: &dyn Receiver,
        buffer: &mut [u8],
        touch: bool,
        bytes: u64,
        checked: bool,
    ) -> Result<(Measured, Sent), TransferError> {
        let to: SocketAddrV4 = receiver.address();
        match self {
            Self::Generator(handle) => {
                let bytes = handle.start(to, bytes);
                let sent = || Ok::<_, SenderError>(Sent { bytes, cpu_time: Duration::ZERO });
                let wrong = |offset, piece: &[u8]| handle.first_wrong(offset, piece);
                receive_stream(receiver, buffer, reader(touch, checked, wrong), sent)
            }
            Self::Kernel(cpu) => {
                let sender = Sender::start(SenderConfig {
                    to,
                    bytes,
                    pattern: PATTERN,
                    unique: checked,
                    namespace: None,
                    cpu: *cpu,
                })?;
                let wrong = |offset, piece: &[u8]| PATTERN.first_wrong(offset, piece);
                receive_stream(receiver, buffer, reader(touch, checked, wrong), || sender.join())
            }
        }
    }
}

/// What is done with the data.
fn reader(
    touch: bool,
    checked: bool,
    wrong: impl Fn(u64, &[u8]) -> Option<u64>,
) -> impl FnMut(u64, &[u8]) -> Option<u64> {
    move |offset, piece| {
        if touch {
            black_box(piece.iter().fold(0_u64, |sum, byte| sum.wrapping_add((*byte).into())));
        }
        if checked { wrong(offset, piece) } else { None }
    }
}
