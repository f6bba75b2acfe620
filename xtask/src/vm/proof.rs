//! What a guest proves, step by step.

use super::{guest::Guest, machine::Outcome};
use crate::Failed;

/// Versions that current Linux drives.
pub(super) const VERSIONS: [&str; 4] = ["3.0", "3.2", "3.3", "3.4"];

/// A device of the guest.
pub(super) struct Device {
    /// The name of its socket, and in messages.
    pub(super) name: &'static str,
    /// Its place on the guest's bus 0, in hexadecimal digits.
    pub(super) slot: &'static str,
    /// What `ioat emulate` is told besides the version.
    pub(super) options: &'static [&'static str],
}

impl Device {
    /// Its PCI address in the guest.
    pub(super) fn address(&self) -> String {
        format!("0000:00:{}.0", self.slot)
    }
}

/// The device that Linux's driver is proven on.
pub(super) const STOCK: Device =
    Device { name: "stock", slot: "10", options: &["--channels", "2"] };
/// One that fails Linux's driver: an error that Linux takes for the memory's, a halt without a reason,
/// a hang, a completion word and an interrupt that are lost. Linux's self test takes some of the
/// descriptors before the first.
pub(super) const FAULTY: Device = Device {
    name: "faulty",
    slot: "11",
    options: &[
        "--channels",
        "1",
        "--fault",
        "error@200:read-data,halt@400,hang@600,lose-completion@800,lose-interrupt@1000,latency=100us",
        "--interrupts",
        "msi",
    ],
};
/// The device that our own driver is proven on. As the two with faults, it takes longer than an emulated
/// processor needs to begin to wait: an engine that is done by then interrupts nobody.
pub(super) const OURS: Device =
    Device { name: "ours", slot: "12", options: &["--channels", "2", "--fault", "latency=100us"] };
/// One that fails our own driver in the middle of its test.
pub(super) const OURS_FAULTY: Device = Device {
    name: "ours-faulty",
    slot: "13",
    options: &[
        "--channels",
        "1",
        "--fault",
        "halt@500,hang@1000,latency=100us",
        "--interrupts",
        "intx",
    ],
};
/// All devices of a guest.
pub(super) const DEVICES: [Device; 4] = [STOCK, FAULTY, OURS, OURS_FAULTY];

/// A step: its name, and what the guest does for it. What it returns says what was seen.
pub(super) struct Step {
    pub(super) name: &'static str,
    pub(super) prove: fn(&mut Guest) -> Result<String, Failed>,
}

/// The steps, in order.
pub(super) const STEPS: [Step; 11] = [
    Step { name: "Linux's driver takes the device", prove: Guest::stock_driver_binds },
    Step { name: "dmatest, by interrupt", prove: Guest::dmatest_by_interrupt },
    Step { name: "dmatest, polled", prove: Guest::dmatest_polled },
    Step { name: "dmatest, with faults", prove: Guest::dmatest_with_faults },
    Step { name: "dmatest, after faults", prove: Guest::dmatest_after_faults },
    Step { name: "ioat bind", prove: Guest::bind },
    Step { name: "ioat dmatest", prove: Guest::our_dmatest },
    Step { name: "ioat dmatest, with a halt and a hang", prove: Guest::our_dmatest_with_faults },
    Step { name: "ioat demo", prove: Guest::our_demo },
    Step { name: "ioat unbind", prove: Guest::unbind },
    Step { name: "ioat dmatest, through iommufd", prove: Guest::our_dmatest_through_iommufd },
];

/// What `quickdata/cap` reads, and so what Linux makes of the version's capabilities.
pub(super) fn capabilities(version: &str) -> &'static str {
    match version {
        // P+Q, and exclusive or by means of it.
        "3.3" => "copy pq pq_val xor xor_val intr",
        // Linux believes none of the Xeons' other operations.
        _ => "copy intr",
    }
}

/// The tests that dmatest makes threads for.
pub(super) fn tests(version: &str) -> &'static [&'static str] {
    match version {
        "3.3" => &["copy", "xor", "pq"],
        _ => &["copy"],
    }
}

/// Each step is reported on a line: outcome, name, what was seen.
pub(super) const PASSED: &str = "passed";
pub(super) const FAILED: &str = "failed";
/// The last line.
pub(super) const FINISHED: &str = "finished";

/// Whether the guest has proven everything.
pub(super) fn judge(version: &str, outcome: &Outcome) -> Result<(), Failed> {
    let Outcome { report, logs: _, wrong } = outcome;
    let mut lines = report.iter();
    for step in &STEPS {
        let line = lines.next().map_or("", String::as_str);
        let (verdict, rest) = line.split_once('\t').unwrap_or((line, ""));
        let (name, seen) = rest.split_once('\t').unwrap_or((rest, ""));
        match verdict {
            PASSED if name == step.name => println!("xtask: {version}: {name}: {seen}"),
            FAILED if name == step.name => return Err(format!("{name}: {seen}")),
            _ => {
                let why = wrong.as_deref().unwrap_or("the guest ended before it");
                return Err(format!("{}: not proven ({why}; it reported `{line}`)", step.name));
            }
        }
    }
    if lines.as_slice() != [FINISHED] {
        return Err(format!("the guest's last words should be `{FINISHED}`: {lines:?}"));
    }
    wrong.clone().map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests_of_judge {
    use super::*;

    fn outcome(lines: &[String], wrong: Option<&str>) -> Outcome {
        let wrong = wrong.map(str::to_owned);
        Outcome { report: lines.to_vec(), logs: String::new(), wrong }
    }

    #[test]
    fn only_a_whole_report_is_a_proof() {
        let step = |verdict: &str, step: &Step| format!("{verdict}\t{}\tseen", step.name);
        let mut all: Vec<String> = STEPS.iter().map(|each| step(PASSED, each)).collect();
        all.push(FINISHED.to_owned());
        assert_eq!(judge("3.2", &outcome(&all, None)), Ok(()));
        assert!(judge("3.2", &outcome(&all, Some("QEMU: 1"))).is_err());
        // A missing line, wherever it is.
        for missing in 0..all.len() {
            let mut lines = all.clone();
            lines.remove(missing);
            assert!(judge("3.2", &outcome(&lines, None)).is_err(), "{missing}");
        }
        // One that failed, and one that says something else.
        for (index, each) in STEPS.iter().enumerate() {
            for line in [step(FAILED, each), format!("{PASSED} {}", each.name), String::new()] {
                let mut lines = all.clone();
                lines[index] = line;
                assert!(judge("3.2", &outcome(&lines, None)).is_err(), "{index}");
            }
        }
        let more: Vec<String> = all.iter().cloned().chain([FINISHED.to_owned()]).collect();
        assert!(judge("3.2", &outcome(&more, None)).is_err());
    }
}
