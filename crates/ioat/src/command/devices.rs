use clap::Args;
use dmaengine::Registry;
use ioat::engine::EngineName;
use serde::Serialize;

use crate::failure::Failure;

/// Lists the DMA channels that this machine and this build offer.
#[derive(Debug, Args)]
#[command(after_help = "Example: ioat devices --json")]
pub(crate) struct Devices {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// One channel, as `--json` prints it.
#[derive(Debug, Serialize)]
struct Row {
    name: String,
    engine: String,
    kind: &'static str,
    version: Option<String>,
    caps: Vec<&'static str>,
    in_use: bool,
    memcpy_count: u64,
    bytes_transferred: u64,
}

impl Devices {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        let registry = Registry::new();
        for name in
            [EngineName::Cpu, EngineName::Threads(1), EngineName::Model(ioat_model::Version::V3_2)]
        {
            let device = name.open().map_err(|error| Failure::Machine(error.to_string()))?;
            registry.register(device);
        }
        let rows: Vec<Row> = registry
            .list()
            .into_iter()
            .map(|channel| Row {
                name: channel.name.to_string(),
                engine: channel.info.engine,
                kind: channel.info.kind.as_str(),
                version: channel.info.version,
                caps: channel.info.capabilities.names().collect(),
                in_use: channel.users > 0,
                memcpy_count: channel.stats.memcpy_count(),
                bytes_transferred: channel.stats.bytes_transferred(),
            })
            .collect();
        if self.json {
            crate::command::print_json(&rows);
            return Ok(());
        }
        println!("{:<11} {:<11} {:<9} {:<8} capabilities", "channel", "engine", "kind", "version");
        for row in rows {
            let version = row.version.as_deref().unwrap_or("-");
            let capabilities = row.caps.join(" ");
            println!(
                "{:<11} {:<11} {:<9} {version:<8} {capabilities}",
                row.name, row.engine, row.kind
            );
        }
        Ok(())
    }
}
