//! Instructions of the I/OAT driver and of receive calls, counted by callgrind. The counts are the same
//! in every run, so that a limit on one can be a test.

use std::{fs, path::Path, process::Stdio};

use crate::{Failed, cargo_command, packages, root};

/// A way through a crate, which its benchmark `instructions` goes when it is asked.
struct Count<'a> {
    /// The crate.
    package: &'static str,
    /// The benchmark's argument.
    way: &'a str,
    /// The function whose calls, with all that they call, are counted.
    function: &'static str,
    /// What it is, for people.
    what: &'a str,
    /// The most instructions that an operation may take.
    limit: Option<u64>,
}

const COUNTS: [Count<'_>; 3] = [
    Count {
        package: "ioatdma",
        way: "submit",
        function: "submit_batch",
        what: "submit, in batches of 32 with a doorbell each",
        limit: Some(60),
    },
    Count { package: "ioatdma", way: "poll", function: "poll_batch", what: "poll", limit: None },
    Count {
        package: "ioatdma",
        way: "queue",
        function: "copy_batch",
        what: "submit through a `Queue`, likewise",
        limit: None,
    },
];

/// Lengths of reads, in bytes, at which `auto` is compared with `off`, where no engine pays.
const READS: [&str; 3] = ["64", "4096", "65536"];
/// What `auto` may take then, in thousandths of what `off` does.
const AUTO_LIMIT: u64 = 1010;

/// Counts, prints, and fails where a limit is passed.
pub(crate) fn run() -> Result<(), Failed> {
    packages::ensure("valgrind", "valgrind")?;
    let folder = root().join("target/callgrind");
    fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    for count in COUNTS {
        let counted = count.count(&folder)?;
        if let Some(limit) = count.limit
            && counted.instructions > limit * counted.operations
        {
            return Err(format!("{}: {limit} instructions are allowed", counted.shown));
        }
    }
    for read in READS {
        let [off, auto] = ["off", "auto"].map(|copybreak| {
            Count {
                package: "netdma",
                way: &format!("{copybreak}-{read}"),
                function: "counted_receive",
                what: &format!("a read of {read} bytes, copied by the CPU, copybreak {copybreak}"),
                limit: None,
            }
            .count(&folder)
        });
        let (off, auto) = (off?.instructions, auto?);
        if auto.instructions * 1000 > off * AUTO_LIMIT {
            return Err(format!(
                "{}: {} of 1000 more than without an engine are allowed",
                auto.shown,
                AUTO_LIMIT - 1000
            ));
        }
    }
    Ok(())
}

/// What was counted.
struct Counted {
    instructions: u64,
    operations: u64,
    /// As it was printed, with where to look.
    shown: String,
}

impl Count<'_> {
    fn count(&self, folder: &Path) -> Result<Counted, Failed> {
        let Self { package, way, function, what, .. } = self;
        let out = folder.join(format!("{package}-{way}"));
        let operations = benchmark(package, way, function, &out)?;
        let instructions = instructions(&out)?;
        // Two decimals, rounded up: more than the limit is never printed as the limit.
        let hundredths = (instructions * 100).div_ceil(operations);
        let figure = format!("{}.{:02}", hundredths / 100, hundredths % 100);
        println!("xtask: {figure} instructions an operation: {what}");
        let shown = format!(
            "{what}: {figure} instructions an operation (`callgrind_annotate {}` shows them)",
            out.display()
        );
        Ok(Counted { instructions, operations, shown })
    }
}

/// Runs the benchmark under callgrind, which writes to `out`; the number of operations.
fn benchmark(package: &str, way: &str, function: &str, out: &Path) -> Result<u64, Failed> {
    let runner = format!(
        "target.'cfg(all())'.runner=['valgrind', '--quiet', '--tool=callgrind', \
         '--collect-atstart=no', '--toggle-collect=*{function}*', '--callgrind-out-file={}']",
        out.display()
    );
    let bench = ["bench", "--package", package, "--bench", "instructions", "--", way];
    let shown = format!("cargo --config \"{runner}\" {}", bench.join(" "));
    println!("xtask: {shown}");
    let output =
        cargo_command().args(["--config", &runner]).args(bench).stderr(Stdio::inherit()).output();
    let output = match output {
        Ok(output) if output.status.success() => output.stdout,
        _ => return Err(shown),
    };
    let text = String::from_utf8_lossy(&output);
    let operations = text.lines().find_map(|line| line.strip_prefix("operations: ")?.parse().ok());
    operations.ok_or_else(|| format!("{shown}: it does not say how many operations there were"))
}

/// The total in callgrind's output. 0 cannot be: then the function was not found.
fn instructions(out: &Path) -> Result<u64, Failed> {
    let text = fs::read_to_string(out).map_err(|error| format!("{}: {error}", out.display()))?;
    let totals = text.lines().find_map(|line| line.strip_prefix("totals: ")?.parse().ok());
    totals
        .filter(|total| *total > 0)
        .ok_or_else(|| format!("{}: callgrind has counted nothing", out.display()))
}
