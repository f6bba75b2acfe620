use std::{
    fs::File,
    io::{BufWriter, Write},
    os::{fd::AsFd, unix::net::UnixStream},
    path::PathBuf,
    time::Instant,
};

use clap::{Args, ValueEnum};
use ioat_model::{
    Config, Faults, InterruptStyle, ParseFaultError, Version,
    registers::MAX_CHANNELS,
    vfio_user::{BindError, Event, Server},
};

use super::machine;
use crate::{failure::Failure, size};

/// Serves an I/OAT device to QEMU, or to any other vfio-user client, over a Unix socket.
///
/// One client at a time. When it goes, the device stays, with its registers, for the next one; its
/// faults are counted on. What happens is told on standard error. Ctrl-C ends it and removes the
/// socket.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLE)]
pub(crate) struct Emulate {
    /// Where to listen.
    #[arg(long, value_name = "PATH")]
    socket: PathBuf,
    /// The hardware version.
    #[arg(long, value_name = "V", default_value_t)]
    version: Version,
    /// How many channels.
    #[arg(long, value_name = "N", default_value_t = 2,
          value_parser = clap::value_parser!(u8).range(1..=i64::from(MAX_CHANNELS)))]
    channels: u8,
    /// The most bytes that a descriptor moves: a power of two from 4K to 2G.
    #[arg(long, value_name = "BYTES", default_value = "1M", value_parser = parse_xfercap)]
    xfercap: u8,
    /// The best way of interrupting that the device has.
    #[arg(long, value_enum, default_value_t)]
    interrupts: Interrupts,
    /// Faults to order, such as error@5:read-data or hang@chan0.1/1000; can be given several times.
    #[arg(long = "fault", value_name = "SPEC")]
    faults: Vec<String>,
    /// Write a line to this file for each access to a register: seconds, place, offset, length, value.
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
}

const EXAMPLE: &str = r#"Example:
  ioat emulate --socket /run/ioat.sock --version 3.2 &
  qemu-system-x86_64 -machine q35,memory-backend=mem -m 1G \
      -object memory-backend-memfd,id=mem,size=1G,share=on \
      -device '{"driver":"vfio-user-pci","socket":{"type":"unix","path":"/run/ioat.sock"}}' ...

QEMU 10.1 or later is needed, and memory that can be shared: without share=on the device reaches none.
A stock Linux guest binds ioatdma to the device; with a guest IOMMU (-machine kernel-irqchip=split
-device intel-iommu,caching-mode=on, intel_iommu=on), vfio-pci."#;

/// [`InterruptStyle`], as the command line spells it.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Interrupts {
    /// A vector for each channel.
    #[default]
    Msix,
    /// One message.
    Msi,
    /// A line.
    Intx,
}

impl Emulate {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let Self { socket, version, channels, xfercap, interrupts, faults, trace } = self;
        let interrupts = match interrupts {
            Interrupts::Msix => InterruptStyle::Msix,
            Interrupts::Msi => InterruptStyle::Msi,
            Interrupts::Intx => InterruptStyle::Intx,
        };
        // The pieces may stand in one option or in several: they are one text for `Faults`.
        let faults = match &faults[..] {
            [] => Faults::none(),
            faults => faults
                .join(",")
                .parse()
                .map_err(|error: ParseFaultError| Failure::Usage(format!("--fault: {error}")))?,
        };
        let config = Config { version, channels, xfercap, interrupts, faults, ..Config::default() };
        let mut trace = match &trace {
            None => None,
            Some(path) => Some(BufWriter::new(File::create(path).map_err(|error| {
                Failure::Usage(format!(
                    "cannot write {}: {error}; choose another --trace",
                    path.display()
                ))
            })?)),
        };
        let (stop, interrupted) = UnixStream::pair().map_err(machine)?;
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            let end = interrupted.try_clone().map_err(machine)?;
            signal_hook::low_level::pipe::register(signal, end).map_err(machine)?;
        }
        let server = Server::bind(&socket, config).map_err(refused)?;
        eprintln!("listening on {} (version {version}, {channels} channels)", socket.display());
        let started = Instant::now();
        let mut broken = None;
        let outcome = server.run(stop.as_fd(), &mut |event| match (&event, &mut trace) {
            (Event::Read { .. } | Event::Write { .. }, None) => {}
            (Event::Read { .. } | Event::Write { .. }, Some(trace)) => {
                let seconds = started.elapsed().as_secs_f64();
                if let Err(error) = writeln!(trace, "{seconds:.6} {event}") {
                    broken.get_or_insert(error);
                }
            }
            _ => eprintln!("{event}"),
        });
        drop(server);
        outcome.map_err(|error| Failure::Failed(format!("{}: {error}", socket.display())))?;
        let flushed = trace.map_or(Ok(()), |mut trace| trace.flush());
        broken.map_or(flushed, Err).map_err(|error| Failure::Failed(format!("the trace: {error}")))
    }
}

fn refused(error: BindError) -> Failure {
    match error {
        BindError::InUse(_) | BindError::NotASocket(_) | BindError::Socket { .. } => {
            Failure::Usage(error.to_string())
        }
        BindError::Copies(_) | BindError::Thread(_) => machine(error),
    }
}

/// The logarithm to base 2, which is what the register XFERCAP holds.
fn parse_xfercap(text: &str) -> Result<u8, String> {
    let bytes = size::parse(text)?;
    match u8::try_from(bytes.trailing_zeros()) {
        Ok(power @ 12..=31) if bytes.is_power_of_two() => Ok(power),
        _ => Err("it must be a power of two from 4K to 2G".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xfercap() {
        assert_eq!(parse_xfercap("4K"), Ok(12));
        assert_eq!(parse_xfercap("1M"), Ok(20));
        assert_eq!(parse_xfercap("2G"), Ok(31));
        for bad in ["0", "2K", "6K", "4G", "1048577"] {
            assert!(parse_xfercap(bad).is_err(), "{bad}");
        }
    }
}
