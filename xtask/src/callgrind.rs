//! Instructions that the I/OAT driver takes, counted by callgrind. The counts are the same in every
//! run, so that a limit on one can be a test.

use std::{fs, path::Path, process::Stdio};

use crate::{Failed, cargo_command, packages, root};

/// A way through the driver, which the benchmark `instructions` of `ioatdma` goes when it is asked.
struct Count {
    /// The benchmark's argument.
    way: &'static str,
    /// The function whose calls, with all that they call, are counted.
    function: &'static str,
    /// What it is, for people.
    what: &'static str,
    /// The most instructions that an operation may take.
    limit: Option<u64>,
}

const COUNTS: [Count; 3] = [
    Count {
        way: "submit",
        function: "submit_batch",
        what: "submit, in batches of 32 with a doorbell each",
        limit: Some(60),
    },
    Count { way: "poll", function: "poll_batch", what: "poll", limit: None },
    Count {
        way: "queue",
        function: "copy_batch",
        what: "submit through a `Queue`, likewise",
        limit: None,
    },
];

/// Counts, prints, and fails where a limit is passed.
pub(crate) fn run() -> Result<(), Failed> {
    packages::ensure("valgrind", "valgrind")?;
    let folder = root().join("target/callgrind");
    fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    for Count { way, function, what, limit } in COUNTS {
        let out = folder.join(way);
        let operations = benchmark(way, function, &out)?;
        let instructions = instructions(&out)?;
        // Two decimals, rounded: more than the limit is never printed as the limit.
        let hundredths = (instructions * 100).div_ceil(operations);
        let figure = format!("{}.{:02}", hundredths / 100, hundredths % 100);
        println!("xtask: {figure} instructions an operation: {what}");
        if let Some(limit) = limit
            && instructions > limit * operations
        {
            return Err(format!(
                "{what}: {figure} instructions an operation, where {limit} are allowed; \
                 `callgrind_annotate {}` shows them",
                out.display()
            ));
        }
    }
    Ok(())
}

/// Runs the benchmark under callgrind, which writes to `out`; the number of operations.
fn benchmark(way: &str, function: &str, out: &Path) -> Result<u64, Failed> {
    let runner = format!(
        "target.'cfg(all())'.runner=['valgrind', '--quiet', '--tool=callgrind', \
         '--collect-atstart=no', '--toggle-collect=*{function}*', '--callgrind-out-file={}']",
        out.display()
    );
    let bench = ["bench", "--package", "ioatdma", "--bench", "instructions", "--", way];
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
