//! `ioat recv` gets files from kernel sockets.

use std::{
    fs,
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    path::Path,
};

use ioat::lab::Pattern;

use crate::{
    DONE, FAILED, Running, STACK, folder, has_fields, in_namespace, ioat, ioat_after, links_here,
    waiting::PATIENCE,
};

/// Sends `content` as `nc -N` would, and waits until the receiver has closed.
pub(crate) fn send(content: &[u8]) -> io::Result<()> {
    let to: SocketAddr = STACK.parse().expect("an address");
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(content)?;
    stream.shutdown(Shutdown::Write)?;
    stream.read_to_end(&mut Vec::new()).map(drop)
}

/// Like nothing else, so that a wrong byte shows.
pub(crate) fn content(len: usize) -> Vec<u8> {
    let mut content = vec![0; len];
    Pattern::new(len as u64).fill(0, &mut content);
    content
}

fn recv(engine: &str, out: &Path) -> std::process::Command {
    let mut command = ioat(&["recv", "--listen", STACK, "--address", "10.77.0.2/24"]);
    command.args(["--link", "tap:ioat0", "--engine", engine, "--out"]).arg(out);
    command
}

#[test]
fn files_are_identical_with_every_engine() {
    let folder = folder("files");
    in_namespace(|| {
        for (engine, kind) in [("cpu", "cpu"), ("threads", "software"), ("ioat-model", "model")] {
            for len in [64 << 20, 12_345_677, 0] {
                let (sent, out) = (content(len), folder.join("received"));
                let running = Running::listening(recv(engine, &out).arg("--json"));
                send(&sent).unwrap();
                let output = running.finish();
                assert_eq!(output.status.code(), DONE, "{output:?}");
                assert!(fs::read(&out).unwrap() == sent, "{engine}: {len} bytes differ");
                let summary: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
                has_fields(
                    &summary,
                    &[
                        "bytes",
                        "seconds",
                        "gbps",
                        "engine",
                        "kind",
                        "receiver_cpu_s_per_gb",
                        "engine_cpu_s_per_gb",
                        "bytes_by_engine",
                        "bytes_by_cpu",
                        "bytes_by_cpu_by_cause",
                        "copies_by_engine",
                        "early_copies",
                        "waits",
                        "wait_s",
                        "copies_repeated",
                        "engine_resets",
                    ],
                );
                let causes = summary["bytes_by_cpu_by_cause"].as_object().unwrap();
                let of_causes: u64 = causes.values().map(|bytes| bytes.as_u64().unwrap()).sum();
                assert_eq!(of_causes, summary["bytes_by_cpu"], "{summary}");
                assert_eq!(causes["not reachable"], 0, "{summary}");
                assert_eq!((&summary["engine"], &summary["kind"]), (&engine.into(), &kind.into()));
                assert_eq!(summary["bytes"], len);
                let by = |who| summary[who].as_u64().unwrap();
                assert_eq!(by("bytes_by_engine") + by("bytes_by_cpu"), len as u64);
                let offloads = kind != "cpu" && len > 0;
                assert_eq!(by("bytes_by_engine") > 0, offloads, "{summary}");
                assert_eq!(links_here(), ["lo"], "the link is gone");
            }
        }
    });
}

#[test]
fn without_a_file_it_counts() {
    in_namespace(|| {
        // The address follows from where it listens; the engine is chosen.
        let running = Running::listening(&mut ioat(&["recv", "--listen", STACK]));
        send(&content(1_000_003)).unwrap();
        let output = running.finish();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), DONE, "{said}");
        assert!(said.contains("received 1000003 bytes"), "{said}");
        assert!(output.stdout.is_empty());
    });
}

#[test]
fn a_full_disk_is_reported() {
    let folder = folder("full");
    in_namespace(|| {
        let script = format!(
            "mount -t tmpfs -o size=1M tmpfs {0}
             exec \"$@\" --out {0}/file",
            folder.display()
        );
        let running = Running::listening(&mut ioat_after(&script, &["recv", "--listen", STACK]));
        let refused = send(&content(8 << 20));
        assert!(refused.is_err(), "nobody took all of it");
        let output = running.finish();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), FAILED, "{said}");
        assert!(said.contains("cannot write") && said.contains("No space left"), "{said}");
        assert!(said.contains("full/file"), "{said}");
    });
}

#[test]
fn a_sender_that_breaks_off_is_reported() {
    in_namespace(|| {
        let mut running = Running::listening(&mut ioat(&["recv", "--listen", STACK]));
        let stream = TcpStream::connect(STACK).unwrap();
        running.wait_for("receiving from ");
        rustix::net::sockopt::set_socket_linger(&stream, Some(std::time::Duration::ZERO)).unwrap();
        drop(stream);
        let output = running.finish();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), FAILED, "{said}");
        assert!(said.contains("reset"), "{said}");
    });
}
