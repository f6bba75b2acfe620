use dmaengine::ChannelListing;
use serde::Serialize;

use super::function::{Found, Reason};

/// A channel, or a function whose channels are out of reach, as `--json` prints it. All rows have all
/// fields. A function without channels has its address for a name, and what the kernel's driver has
/// counted.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    name: String,
    engine: String,
    kind: &'static str,
    version: Option<String>,
    caps: Vec<&'static str>,
    in_use: bool,
    memcpy_count: u64,
    bytes_transferred: u64,
    /// Whether it can be opened now.
    usable: bool,
    /// Why not.
    reasons: Vec<Reason>,
    /// The PCI function that it is of.
    function: Option<Function>,
}

/// A PCI function, as `--json` prints it.
#[derive(Debug, Serialize)]
struct Function {
    address: String,
    id: String,
    family: &'static str,
    driver: Option<String>,
    iommu_group: Option<u32>,
    numa_node: Option<u32>,
}

impl Function {
    fn of(found: &Found) -> Self {
        let function = &found.function;
        Self {
            address: function.address.to_string(),
            id: function.id.to_string(),
            family: function.family.name(),
            driver: function.driver.clone(),
            iommu_group: function.group.as_ref().map(|group| group.id),
            numa_node: function.numa_node,
        }
    }
}

impl Row {
    pub(super) fn of_channel(channel: ChannelListing, found: Option<&Found>) -> Self {
        Self {
            name: channel.name.to_string(),
            engine: channel.info.engine,
            kind: channel.info.kind.as_str(),
            version: channel.info.version,
            caps: channel.info.capabilities.names().collect(),
            in_use: channel.users > 0,
            memcpy_count: channel.stats.memcpy_count(),
            bytes_transferred: channel.stats.bytes_transferred(),
            usable: true,
            reasons: Vec::new(),
            function: found.map(Function::of),
        }
    }

    pub(super) fn of_function(found: &Found, reasons: Vec<Reason>) -> Self {
        let channels = &found.function.channels;
        Self {
            name: found.function.address.to_string(),
            engine: found.engine(),
            kind: dmaengine::Kind::Hardware.as_str(),
            version: Some(found.function.family.version().to_string()),
            caps: Vec::new(),
            in_use: found.in_use(),
            memcpy_count: channels.iter().map(|channel| channel.memcpy_count).sum(),
            bytes_transferred: channels.iter().map(|channel| channel.bytes_transferred).sum(),
            usable: false,
            reasons,
            function: Some(Function::of(found)),
        }
    }
}

/// Prints the channels as a table, and behind it the functions that cannot be used.
pub(super) fn print(rows: &[Row]) {
    let (channels, functions): (Vec<&Row>, Vec<&Row>) = rows.iter().partition(|row| row.usable);
    let engine_width = channels.iter().map(|row| row.engine.len()).max().unwrap_or(0).max(11);
    println!(
        "{:<11} {:<engine_width$} {:<9} {:<8} capabilities",
        "channel", "engine", "kind", "version"
    );
    for row in &channels {
        let version = row.version.as_deref().unwrap_or("-");
        let capabilities = row.caps.join(" ");
        println!(
            "{:<11} {:<engine_width$} {:<9} {version:<8} {capabilities}",
            row.name, row.engine, row.kind
        );
    }
    for row in &functions {
        println!();
        print_function(row);
    }
    if rows.iter().all(|row| row.function.is_none()) {
        println!(
            "\nThis machine shows no I/OAT function. If its processor is a Xeon up to Ice Lake, the \
             firmware's settings\nmay hide it (CBDMA, I/OAT or Crystal Beach DMA); in a virtual machine, \
             its host has to pass one on."
        );
    }
}

fn print_function(row: &Row) {
    let Some(Function { address, id, family, driver, iommu_group, numa_node }) = &row.function
    else {
        return;
    };
    print!("{address}   {family}, version {}, {id}", row.version.as_deref().unwrap_or("-"));
    match driver {
        Some(driver) => print!(", driver {driver}"),
        None => print!(", no driver"),
    }
    if let Some(group) = iommu_group {
        print!(", IOMMU group {group}");
    }
    if let Some(node) = numa_node {
        print!(", NUMA node {node}");
    }
    println!("\n  cannot be used now:");
    for Reason { why, remedy, .. } in &row.reasons {
        println!("  - {why}");
        if let Some(remedy) = remedy {
            println!("    {remedy}");
        }
    }
}
