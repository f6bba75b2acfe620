//! Engines by name: what `--engine` takes, and what it opens.

#[cfg(target_arch = "x86_64")]
pub mod hardware;
pub mod model;

use std::{fmt, str::FromStr, sync::Arc};

use dmaengine::{CpuDevice, DmaDevice, ThreadsDevice};
use ioat_model::{ParseVersionError, Version, in_process};
use ioatdma::sysfs::{ParseAddressError, PciAddress};

/// An engine as the command line names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum EngineName {
    /// The calling thread copies.
    Cpu,
    /// Copy threads, this many.
    Threads(usize),
    /// The I/OAT driver on the device model in this process, with the model's version. It has no
    /// faults; [`model::open`] and `ioat emulate` take orders for them.
    Model(Version),
    /// The I/OAT driver on hardware, by PCI address.
    Hardware(PciAddress),
    /// The best there is: hardware, else `cpu`.
    Auto,
}

/// The most copy threads.
const MAX_THREADS: usize = 64;

/// A name that is no engine's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseEngineError {
    /// No engine begins like this.
    #[error(
        "unknown engine `{0}`: use cpu, threads[:N], ioat-model[:VERSION], ioat:PCI-ADDRESS or auto"
    )]
    Unknown(String),
    /// The number of threads is none, or too great.
    #[error("`{0}` is no number of copy threads: use 1 to {MAX_THREADS}")]
    Threads(String),
    /// The model does not have that version.
    #[error(transparent)]
    Version(#[from] ParseVersionError),
    /// What stands behind `ioat:` is no PCI address.
    #[error(transparent)]
    Address(#[from] ParseAddressError),
}

impl FromStr for EngineName {
    type Err = ParseEngineError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, argument) =
            text.split_once(':').map_or((text, None), |(name, argument)| (name, Some(argument)));
        match (name, argument) {
            ("cpu", None) => Ok(Self::Cpu),
            ("auto", None) => Ok(Self::Auto),
            ("threads", None) => Ok(Self::Threads(1)),
            ("threads", Some(count)) => match count.parse() {
                Ok(count) if (1..=MAX_THREADS).contains(&count) => Ok(Self::Threads(count)),
                _ => Err(ParseEngineError::Threads(count.into())),
            },
            ("ioat-model", None) => Ok(Self::Model(Version::default())),
            ("ioat-model", Some(version)) => Ok(Self::Model(version.parse()?)),
            ("ioat", Some(address)) => Ok(Self::Hardware(address.parse()?)),
            _ => Err(ParseEngineError::Unknown(text.into())),
        }
    }
}

impl fmt::Display for EngineName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Threads(1) => f.write_str("threads"),
            Self::Threads(count) => write!(f, "threads:{count}"),
            Self::Model(version) => write!(f, "ioat-model:{version}"),
            Self::Hardware(address) => write!(f, "ioat:{address}"),
            Self::Auto => f.write_str("auto"),
        }
    }
}

/// Why an engine could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// VFIO does not give the hardware to this process, or the driver did not accept it.
    #[cfg(target_arch = "x86_64")]
    #[error(
        "{0} (`ioat devices` says what each function lacks; --engine ioat-model is the same driver \
         on the device model)"
    )]
    Hardware(#[from] hardware::OpenError),
    /// I/OAT is in x86 machines.
    #[cfg(not(target_arch = "x86_64"))]
    #[error("no machine of this architecture has I/OAT: use --engine ioat-model")]
    Architecture,
    /// The model did not start, or the driver did not accept it.
    #[error("cannot open the device model: {0}")]
    Model(#[from] model::OpenError),
}

impl EngineName {
    /// Opens the engine's device.
    ///
    /// # Errors
    ///
    /// See [`OpenError`].
    pub fn open(&self) -> Result<Arc<dyn DmaDevice>, OpenError> {
        match self {
            Self::Cpu => Ok(Arc::new(CpuDevice::new(1))),
            Self::Auto => Ok(hardware().unwrap_or_else(|| Arc::new(CpuDevice::new(1)))),
            Self::Threads(count) => Ok(Arc::new(ThreadsDevice::new(*count))),
            Self::Model(version) => {
                let device = ioat_model::Config { version: *version, ..Default::default() };
                let config = in_process::Config { model: device, ..Default::default() };
                Ok(model::open(config, ioatdma::Options::default())?)
            }
            #[cfg(target_arch = "x86_64")]
            Self::Hardware(address) => Ok(hardware::open(*address, ioatdma::Options::default())?),
            #[cfg(not(target_arch = "x86_64"))]
            Self::Hardware(_) => Err(OpenError::Architecture),
        }
    }
}

/// Hardware that nobody uses.
fn hardware() -> Option<Arc<dyn DmaDevice>> {
    #[cfg(target_arch = "x86_64")]
    return hardware::open_any(&ioatdma::Options::default());
    #[cfg(not(target_arch = "x86_64"))]
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for name in ["cpu", "threads", "threads:4", "ioat-model:3.2", "ioat:0000:00:04.0", "auto"] {
            assert_eq!(name.parse::<EngineName>().unwrap().to_string(), name);
        }
        assert_eq!("ioat-model".parse(), Ok(EngineName::Model(Version::V3_2)));
        for version in Version::ALL {
            assert_eq!(format!("ioat-model:{version}").parse(), Ok(EngineName::Model(version)));
        }
        for name in [
            "",
            "gpu",
            "cpu:1",
            "threads:0",
            "threads:x",
            "threads:65",
            "ioat",
            "ioat:",
            "ioat:eth0",
            "ioat:0000:00:04",
            "ioat-model:9.9",
        ] {
            assert!(name.parse::<EngineName>().is_err(), "{name:?}");
        }
    }
}
