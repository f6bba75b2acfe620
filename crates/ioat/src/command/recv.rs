use std::{
    fs::File,
    io::{self, Write},
    net::SocketAddrV4,
    path::PathBuf,
};

use clap::Args;
use ioat::{
    engine::EngineName,
    host::{Host, HostConfig, OpenError},
    host_side::{self, HostSideError},
    measure::{Reads, receive_all},
    offload_counters::OffloadCounters,
};
use netdma::Copybreak;
use netstack::Ipv4Cidr;
use serde::Serialize;
use sockets::{StartError, TcpListener};

use super::{machine, print_json, progress};
use crate::{failure::Failure, size};

/// Receives one TCP connection over a TAP link and writes what it carries to a file.
///
/// The stack in this process is a host of its own, at the far end of the link. The kernel's end gets
/// an address of the same network if it has none, so that programs on this machine can connect.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  ioat recv --listen 10.77.0.2:9000 --link tap:ioat0 --address 10.77.0.2/24 \\
            --engine ioat-model --out FILE
  nc -N 10.77.0.2 9000 < OTHER-FILE      # in another terminal")]
pub(crate) struct Recv {
    /// Where to listen.
    #[arg(long, value_name = "IP:PORT")]
    listen: SocketAddrV4,
    /// The link: a TAP interface, which is made if it does not exist.
    #[arg(long, value_name = "tap:NAME", default_value = "tap:ioat0", value_parser = parse_link,
          env = "IOAT_LINK")]
    link: String,
    /// The stack's address and network [default: the address to listen at, /24].
    #[arg(long, value_name = "CIDR", env = "IOAT_ADDRESS")]
    address: Option<Ipv4Cidr>,
    /// What copies received data to its reader.
    #[arg(long, value_name = "E", default_value = "auto", env = "IOAT_ENGINE")]
    engine: EngineName,
    /// Reads of this many bytes or less are copied by the CPU; `off`: all are.
    #[arg(long, value_name = "N|off", default_value_t, env = "IOAT_COPYBREAK")]
    copybreak: Copybreak,
    /// The length of a read.
    #[arg(long, value_name = "BYTES", default_value = "256K", value_parser = size::parse_length)]
    read_size: usize,
    /// Where to write; without it, data is counted and thrown away.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Print the summary as JSON.
    #[arg(long)]
    json: bool,
}

/// The summary, as `--json` prints it.
#[derive(Debug, Serialize)]
struct Summary {
    bytes: u64,
    seconds: f64,
    gbps: f64,
    engine: String,
    kind: &'static str,
    receiver_cpu_s_per_gb: f64,
    engine_cpu_s_per_gb: f64,
    #[serde(flatten)]
    offload: OffloadCounters,
}

impl Recv {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let address = self.local_address()?;
        let mut out = self.open_out()?;
        let mut config = HostConfig::new(&self.link, address, self.engine.clone());
        config.sockets.copybreak = self.copybreak;
        config.buffer_bytes = self.read_size;
        let host = Host::open(&config).map_err(not_opened)?;
        let kernel = host_side::configure(host.interface(), address).map_err(not_configured)?;
        let mut buffer = host.buffer(self.read_size).map_err(machine)?;
        let listener = TcpListener::bind(host.stack(), self.listen).map_err(|error| {
            Failure::Usage(format!("cannot listen at {}: {error}", self.listen))
        })?;
        eprintln!(
            "listening on {} (interface {}, kernel's address {kernel})",
            listener.local_addr(),
            host.interface()
        );
        let (stream, peer) = listener.accept().map_err(failed)?;
        drop(listener);
        eprintln!("receiving from {peer}");

        let info = &host.device().channels()[0];
        let (name, kind) = (info.engine.clone(), info.kind.as_str());
        let engine_cpu = || host.device().cpu_time().unwrap_or_default();
        let engine_cpu_before = engine_cpu();
        let bar = progress::bytes_unbounded();
        let measured = receive_all(&mut Reads { stream, buffer: &mut buffer }, |piece| {
            bar.inc(piece.len() as u64);
            out.write_all(piece).map_err(|error| self.write_error(&error))
        });
        bar.finish_and_clear();
        let measured = measured.map_err(failed)?;
        out.flush().map_err(|error| failed(self.write_error(&error)))?;
        let offload = OffloadCounters::from(&host.stack().statistics().offload);
        let summary = Summary {
            bytes: measured.bytes,
            seconds: measured.wall.as_secs_f64(),
            gbps: measured.gbps(),
            engine: name,
            kind,
            receiver_cpu_s_per_gb: measured.cpu_s_per_gb(),
            engine_cpu_s_per_gb: measured.s_per_gb(engine_cpu().saturating_sub(engine_cpu_before)),
            offload,
        };
        if self.json {
            print_json(&summary);
        } else {
            let OffloadCounters { bytes_by_engine, bytes_by_cpu, .. } = summary.offload;
            let mut causes = summary.offload.causes();
            if !causes.is_empty() {
                causes = format!(" ({causes})");
            }
            eprintln!(
                "received {} bytes in {:.2} s ({:.2} Gbit/s); copied by {} ({}): {bytes_by_engine} \
                 bytes, by the CPU: {bytes_by_cpu} bytes{causes}",
                summary.bytes, summary.seconds, summary.gbps, summary.engine, summary.kind,
            );
        }
        Ok(())
    }

    /// The stack's address: `--address`, or the one to listen at.
    fn local_address(&self) -> Result<Ipv4Cidr, Failure> {
        let listen = *self.listen.ip();
        let address = match self.address {
            Some(address) => address,
            None if listen.is_unspecified() => {
                return Err(Failure::Usage(
                    "--listen 0.0.0.0 names no address for the stack: add --address CIDR".into(),
                ));
            }
            None => Ipv4Cidr { address: listen, prefix_len: 24 },
        };
        if listen.is_unspecified() || listen == address.address {
            Ok(address)
        } else {
            Err(Failure::Usage(format!(
                "--listen {listen} is not the stack's address {}: make them equal",
                address.address
            )))
        }
    }

    fn open_out(&self) -> Result<Box<dyn Write>, Failure> {
        match &self.out {
            None => Ok(Box::new(io::sink())),
            Some(path) => match File::create(path) {
                Ok(file) => Ok(Box::new(file)),
                Err(error) => Err(Failure::Usage(format!(
                    "cannot write {}: {error}; choose another --out",
                    path.display()
                ))),
            },
        }
    }

    fn write_error(&self, error: &io::Error) -> io::Error {
        let path = self.out.as_deref().unwrap_or_else(|| "the output".as_ref()).display();
        io::Error::new(error.kind(), format!("cannot write {path}: {error}"))
    }
}

/// A name that no interface, or an address that no host can have, is the user's mistake.
fn not_opened(error: OpenError) -> Failure {
    match error {
        OpenError::Tap(netdev::OpenError::BadName { .. })
        | OpenError::Start(StartError::Config(_)) => Failure::Usage(error.to_string()),
        error => machine(error),
    }
}

fn not_configured(error: HostSideError) -> Failure {
    match error {
        HostSideError::NoRoom(..) => Failure::Usage(error.to_string()),
        error => machine(error),
    }
}

fn failed(error: io::Error) -> Failure {
    Failure::Failed(error.to_string())
}

fn parse_link(text: &str) -> Result<String, String> {
    match text.strip_prefix("tap:") {
        Some(name) if !name.is_empty() => Ok(name.to_owned()),
        _ => Err("a link is named tap:NAME, such as tap:ioat0".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links() {
        assert_eq!(parse_link("tap:ioat0").as_deref(), Ok("ioat0"));
        for bad in ["", "ioat0", "tap:", "tun:x"] {
            assert!(parse_link(bad).is_err(), "{bad:?}");
        }
    }
}
