use std::{net::Ipv4Addr, time::Duration};

use clap::Args;
use dmaengine::{Arena, DmaBuf, Kind};
use indicatif::ProgressBar;
use ioat::{
    engine::EngineName,
    host::{Host, HostConfig},
    host_side,
    lab::{Copied, Namespace, Placement, Receiver, StackReceiver, Transfer, VethBaseline},
    measure::{Measured, Spread},
};
use netdma::{Copybreak, CpuCause};
use netstack::Ipv4Cidr;
use serde::Serialize;

use super::{causes::Causes, machine, print_json, progress};
use crate::{failure::Failure, size};

/// Shows the whole system at work on this machine: the Linux kernel's TCP sends, and receivers take
/// turns.
///
/// It makes namespaces of its own, so it needs no privileges but /dev/net/tun, and leaves nothing
/// behind.
#[derive(Debug, Args)]
#[command(after_help = "Example: ioat demo --bytes 4G --json")]
pub(crate) struct Demo {
    /// Bytes that each receiver gets in each round.
    #[arg(long, value_name = "N", default_value = "1G", value_parser = parse_bytes)]
    bytes: u64,
    /// Timed rounds; the median is printed. A first round, in which every byte is checked, is not
    /// timed.
    #[arg(long, value_name = "N", default_value_t = 5,
          value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// The length of a read.
    #[arg(long, value_name = "BYTES", default_value = "256K", value_parser = size::parse_length)]
    read_size: usize,
    /// An engine whose receiver takes part, besides the kernel's own; can be given several times.
    #[arg(long = "engine", value_name = "E", default_values = ["cpu", "threads", "ioat-model"])]
    engines: Vec<EngineName>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

fn parse_bytes(text: &str) -> Result<u64, String> {
    match size::parse(text)? {
        0 => Err("it must be at least 1 byte".into()),
        bytes => Ok(bytes),
    }
}

/// The result, as `--json` prints it.
#[derive(Debug, Serialize)]
struct Document {
    /// Bytes of one round.
    bytes: u64,
    rounds: u32,
    read_size: usize,
    cpus: Placement,
    rows: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Row {
    name: String,
    kind: &'static str,
    #[serde(serialize_with = "Spread::serialize_median")]
    gbps: Spread,
    #[serde(serialize_with = "Spread::serialize_median")]
    receiver_cpu_s_per_gb: Spread,
    #[serde(serialize_with = "Spread::serialize_median")]
    engine_cpu_s_per_gb: Spread,
    /// Of the thread that sends. No receiver gets more than one gigabyte in this time.
    #[serde(serialize_with = "Spread::serialize_median")]
    sender_cpu_s_per_gb: Spread,
    /// Mean of the timed rounds, as is the next.
    bytes_by_engine: u64,
    bytes_by_cpu: u64,
    /// The same by cause.
    bytes_by_cpu_by_cause: Causes,
    verified: bool,
}

impl Demo {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        let _namespace = Namespace::enter().map_err(machine)?;
        let cpus = Placement::choose().map_err(machine)?;
        let contestants = cpus.pin(|| self.contestants());
        let mut contestants = contestants.map_err(machine)??;
        let transfers = u64::from(self.rounds + 1) * contestants.len() as u64;
        let bar = progress::bytes(transfers * self.bytes);
        for contestant in &mut contestants {
            contestant.round(self.transfer(true, cpus.sender), &bar)?;
        }
        for _ in 0..self.rounds {
            for contestant in &mut contestants {
                contestant.round(self.transfer(false, cpus.sender), &bar)?;
            }
        }
        bar.finish_and_clear();
        let document = Document {
            bytes: self.bytes,
            rounds: self.rounds,
            read_size: self.read_size,
            cpus,
            rows: contestants.iter().map(Contestant::row).collect(),
        };
        if self.json {
            print_json(&document);
        } else {
            document.print();
        }
        Ok(())
    }

    fn contestants(&self) -> Result<Vec<Contestant>, Failure> {
        let mut contestants = vec![Contestant::linux(self.read_size)?];
        for (number, engine) in self.engines.iter().enumerate() {
            let number = u8::try_from(number).map_err(|_| {
                Failure::Usage("there are networks for 256 engines, not for more".into())
            })?;
            contestants.push(Contestant::ours(number, engine.clone(), self.read_size)?);
        }
        Ok(contestants)
    }

    const fn transfer(&self, checked: bool, sender_cpu: Option<usize>) -> Transfer {
        Transfer { bytes: self.bytes, checked, sender_cpu }
    }
}

/// One of the receivers that take turns.
struct Contestant {
    name: String,
    kind: Kind,
    receiver: Box<dyn Receiver>,
    buffer: DmaBuf,
    /// Every byte of a round was checked, and right.
    verified: bool,
    rounds: Vec<Round>,
}

/// A timed round.
struct Round {
    measured: Measured,
    sender_cpu: Duration,
    copied: Copied,
    causes: Causes,
}

impl Contestant {
    fn linux(read_size: usize) -> Result<Self, Failure> {
        // The same kind of memory as the others get.
        let arena = Arena::new(read_size).map_err(machine)?;
        Ok(Self {
            name: "linux-veth".into(),
            kind: Kind::Cpu,
            receiver: Box::new(VethBaseline::new().map_err(machine)?),
            buffer: arena.alloc(read_size).map_err(machine)?,
            verified: false,
            rounds: Vec::new(),
        })
    }

    fn ours(number: u8, engine: EngineName, read_size: usize) -> Result<Self, Failure> {
        let address = Ipv4Cidr { address: Ipv4Addr::new(10, 77, number, 2), prefix_len: 24 };
        let mut config = HostConfig::new(&format!("ioat{number}"), address, engine);
        config.buffer_bytes = read_size;
        // The engine's copies are to be seen, whether they pay or not.
        config.sockets.copybreak = Copybreak::LINUX;
        let host = Host::open(&config).map_err(machine)?;
        host_side::configure(host.interface(), address).map_err(machine)?;
        let info = &host.device().channels()[0];
        Ok(Self {
            name: info.engine.clone(),
            kind: info.kind,
            buffer: host.buffer(read_size).map_err(machine)?,
            receiver: Box::new(StackReceiver::listen(host, address.address).map_err(machine)?),
            verified: false,
            rounds: Vec::new(),
        })
    }

    /// One transfer: the first is checked, the others are timed.
    fn round(&mut self, transfer: Transfer, bar: &ProgressBar) -> Result<(), Failure> {
        let what = if transfer.checked { "checking" } else { "timing" };
        bar.set_message(format!("{what} {}", self.name));
        let before = self.receiver.copied().zip(self.causes());
        let (measured, sent) = transfer
            .run(&*self.receiver, &mut self.buffer, |len| bar.inc(len as u64))
            .map_err(|error| Failure::Failed(format!("{}: {error}", self.name)))?;
        if transfer.checked {
            self.verified = true;
            return Ok(());
        }
        // Linux keeps no account: its receiver's CPU copies every byte.
        let by_cpu = measured.bytes;
        let all_by_cpu = Copied { by_engine: 0, by_cpu, engine_cpu: Duration::ZERO };
        let after = self.receiver.copied().zip(self.causes());
        let (copied, causes) = after.zip(before).map_or_else(
            || (all_by_cpu, Causes::only(CpuCause::NoEngine, by_cpu)),
            |(after, before)| (after.0 - before.0, after.1.since(before.1)),
        );
        self.rounds.push(Round { measured, sender_cpu: sent.cpu_time, copied, causes });
        Ok(())
    }

    fn causes(&self) -> Option<Causes> {
        self.receiver.counters().as_ref().map(Causes::of)
    }

    fn row(&self) -> Row {
        let spread = |value: fn(&Round) -> f64| Spread::of(self.rounds.iter().map(value));
        let mean = |value: fn(&Round) -> u64| {
            self.rounds.iter().map(value).sum::<u64>() / self.rounds.len() as u64
        };
        Row {
            name: self.name.clone(),
            kind: self.kind.as_str(),
            gbps: spread(|round| round.measured.gbps()),
            receiver_cpu_s_per_gb: spread(|round| round.measured.cpu_s_per_gb()),
            engine_cpu_s_per_gb: spread(|round| round.measured.s_per_gb(round.copied.engine_cpu)),
            sender_cpu_s_per_gb: spread(|round| round.measured.s_per_gb(round.sender_cpu)),
            bytes_by_engine: mean(|round| round.copied.by_engine),
            bytes_by_cpu: mean(|round| round.copied.by_cpu),
            bytes_by_cpu_by_cause: Causes::mean(self.rounds.iter().map(|round| round.causes)),
            verified: self.verified,
        }
    }
}

impl Document {
    fn print(&self) {
        let Self { bytes, rounds, read_size, cpus, rows } = self;
        println!(
            "Linux's TCP sent {bytes} bytes to each receiver in each of {rounds} rounds, in turns;\n\
             read in pieces of {read_size} bytes. Medians, with the least and the greatest.\n"
        );
        println!(
            "{:<11} {:<9} {:>22} {:>26} {:>15} {:>10} {:>9}",
            "receiver",
            "copies by",
            "Gbit/s",
            "receiver's CPU s/GB",
            "engine's s/GB",
            "by engine",
            "verified"
        );
        for row in rows {
            println!(
                "{:<11} {:<9} {:>22} {:>26} {:>15.3} {:>9.1}% {:>9}",
                row.name,
                row.kind,
                row.gbps.show(1),
                row.receiver_cpu_s_per_gb.show(3),
                row.engine_cpu_s_per_gb.median,
                100.0 * row.bytes_by_engine as f64 / *bytes as f64,
                if row.verified { "yes" } else { "no" },
            );
        }
        for row in rows.iter().filter(|row| row.bytes_by_engine > 0 && row.bytes_by_cpu > 0) {
            println!("{}: copied by the CPU, in bytes: {}", row.name, row.bytes_by_cpu_by_cause);
        }
        println!();
        if let [linux, cpu, engines @ ..] = &rows[..] {
            for row in &rows[1..] {
                println!(
                    "{}: {:.1} times Linux's throughput over veth",
                    row.name,
                    row.gbps.median / linux.gbps.median
                );
            }
            for row in engines {
                println!(
                    "{}: the receiving thread spends {:.2} of the CPU time that it spends when it \
                     copies itself",
                    row.name,
                    row.receiver_cpu_s_per_gb.median / cpu.receiver_cpu_s_per_gb.median
                );
            }
        }
        if let [_, cpu, ..] = &rows[..] {
            let per_gb = cpu.sender_cpu_s_per_gb.median;
            println!(
                "\nOver TAP Linux's sending thread spends {per_gb:.3} s of CPU time per GB: at most \
                 {:.0} Gbit/s, whoever receives.",
                8.0 / per_gb
            );
        }
        if cpus.engine.is_some() && !cpus.engine_is_apart() {
            println!(
                "This machine has two CPUs: the engine's thread shares the receiver's, so its CPU \
                 time is moved, not saved."
            );
        }
        println!(
            "\nlinux-veth is the baseline: kernel to kernel, same sender, same reads. cpu: the \
             receiving thread\ncopies. threads: a second thread copies (software). ioat-model: the \
             I/OAT driver drives a model of\nthe device in this process, which is no hardware: its \
             figures say nothing about a real engine's speed."
        );
    }
}
