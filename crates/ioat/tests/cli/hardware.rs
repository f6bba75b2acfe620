//! I/OAT functions, in a made-up machine: a shell script lays its `/sys` over the real one.
//!
//! The kernel does nothing when these files are written, so moving a function to another driver gets as
//! far as that.

use crate::{DONE, FAILED, MACHINE, USAGE, has_fields, ioat, ioat_after, json, refuses};

/// An I/OAT function of the kernel's driver, one that nobody has, and something else.
const MACHINE_WITH_TWO: &str = r#"
    mount -t tmpfs -o mode=755 tmpfs /sys/bus/pci
    mount -t tmpfs -o mode=755 tmpfs /sys/kernel
    function() {
        folder=/sys/bus/pci/devices/$1
        mkdir -p $folder
        echo $2 > $folder/vendor
        echo $3 > $folder/device
        echo 1 > $folder/enable
        echo -1 > $folder/numa_node
        echo "(null)" > $folder/driver_override
        echo "0xfe000000 0xfe003fff 0x140204" > $folder/resource
        group=/sys/kernel/iommu_groups/$4
        mkdir -p $group/devices
        ln -s $folder $group/devices/$1
        ln -s $group $folder/iommu_group
    }
    driver() {
        mkdir -p /sys/bus/pci/drivers/$2
        ln -s /sys/bus/pci/drivers/$2 /sys/bus/pci/devices/$1/driver
    }
    function 0000:00:04.0 0x8086 0x2021 7
    driver 0000:00:04.0 ioatdma
    function 0000:00:04.1 0x8086 0x2021 8
    function 0000:00:1f.0 0x8086 0xa1c1 8
    driver 0000:00:1f.0 lpc_ich
    channel=/sys/bus/pci/devices/0000:00:04.0/dma/dma0chan0
    mkdir -p $channel
    echo 1 > $channel/in_use
    echo 12 > $channel/memcpy_count
    echo 4096 > $channel/bytes_transferred
"#;

fn then(script: &str) -> String {
    format!("{MACHINE_WITH_TWO}{script}\nexec \"$@\"")
}

#[test]
fn functions_that_cannot_be_used_are_rows_with_reasons() {
    let rows = json(&mut ioat_after(&then(""), &["devices", "--json"]));
    let rows = rows.as_array().unwrap();
    let functions: Vec<_> = rows.iter().filter(|row| row["kind"] == "hardware").collect();
    assert_eq!(functions.len(), 2, "{rows:?}");
    for row in rows {
        has_fields(
            row,
            &[
                "name",
                "engine",
                "kind",
                "version",
                "caps",
                "in_use",
                "memcpy_count",
                "bytes_transferred",
                "usable",
                "reasons",
                "function",
            ],
        );
        assert_eq!(row["usable"].as_bool().unwrap(), row["kind"] != "hardware", "{row}");
    }
    let [kernels, nobodys] = functions[..] else { unreachable!() };
    assert_eq!(kernels["name"], "0000:00:04.0");
    assert_eq!(kernels["engine"], "ioat:0000:00:04.0");
    assert_eq!(kernels["in_use"], true);
    assert_eq!(
        (&kernels["memcpy_count"], &kernels["bytes_transferred"]),
        (&12.into(), &4096.into())
    );
    assert_eq!(kernels["function"]["driver"], "ioatdma");
    assert_eq!(kernels["function"]["iommu_group"], 7);
    assert_eq!(reasons(kernels), ["module", "driver"]);
    assert_eq!(reasons(nobodys), ["iommu-group", "module", "not-bound"]);
    assert_eq!(nobodys["in_use"], false);
}

fn reasons(row: &serde_json::Value) -> Vec<&str> {
    let reasons = row["reasons"].as_array().unwrap();
    for reason in reasons {
        has_fields(reason, &["reason", "why", "remedy"]);
    }
    reasons.iter().map(|reason| reason["reason"].as_str().unwrap()).collect()
}

#[test]
fn the_table_says_why_and_what_would_help() {
    let output = ioat_after(&then(""), &["devices"]).output().unwrap();
    let table = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), DONE, "{table}");
    for words in [
        "0000:00:04.0   Skylake, version 3.2, 8086:2021, driver ioatdma, IOMMU group 7",
        "the kernel uses dma0chan0",
        "rmmod dmatest",
        "0000:00:1f.0 (lpc_ich)",
        "modprobe vfio-pci",
        "ioat bind 0000:00:04.1",
    ] {
        assert!(table.contains(words), "no `{words}` in: {table}");
    }
    let none = r#"mount -t tmpfs tmpfs /sys/bus/pci; exec "$@""#;
    let output = ioat_after(none, &["devices"]).output().unwrap();
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.contains("shows no I/OAT function"), "{table}");
}

#[test]
fn an_engine_that_cannot_be_opened_says_why() {
    let dmatest = ["dmatest", "--engine", "ioat:0000:00:04.0"];
    let words = ["the driver ioatdma has it", "ioat bind 0000:00:04.0", "--engine ioat-model"];
    refuses(&mut ioat_after(&then(""), &dmatest), MACHINE, &words);
    let absent = ["dmatest", "--engine", "ioat:0000:77:04.0"];
    refuses(&mut ioat_after(&then(""), &absent), MACHINE, &["no PCI function 0000:77:04.0"]);
    let other = ["recv", "--listen", "10.77.0.2:9000", "--engine", "ioat:0000:00:1f.0"];
    refuses(&mut ioat_after(&then(""), &other), MACHINE, &["8086:a1c1", "ioat devices"]);
}

#[test]
fn binding_is_refused_with_a_reason() {
    let bind = |script: &str, address, status, words: &[&str]| {
        refuses(&mut ioat_after(&then(script), &["bind", address]), status, words);
    };
    let vfio_pci = "mkdir /sys/bus/pci/drivers/vfio-pci";
    bind("", "0000:00:04.0", MACHINE, &["modprobe vfio-pci"]);
    bind(vfio_pci, "0000:00:04.0", MACHINE, &["the kernel uses dma0chan0"]);
    bind(vfio_pci, "0000:00:1f.0", MACHINE, &["no I/OAT function", "8086:a1c1"]);
    bind(vfio_pci, "0000:00:04.7", MACHINE, &["no PCI function"]);
    // The kernel that is not there does nothing.
    bind(vfio_pci, "0000:00:04.1", FAILED, &["vfio-pci does not take", "dmesg"]);
    let no_group = format!("{vfio_pci}; rm /sys/bus/pci/devices/0000:00:04.1/iommu_group");
    bind(&no_group, "0000:00:04.1", MACHINE, &["IOMMU", "intel_iommu=on"]);
    refuses(&mut ioat(&["bind", "eth0"]), USAGE, &["`eth0` is no PCI address", "0000:00:04.0"]);
    refuses(&mut ioat(&["unbind"]), USAGE, &["ADDRESS"]);
}

#[test]
fn what_is_where_it_should_be_is_left_there() {
    let bound = "driver 0000:00:04.1 vfio-pci";
    for (arguments, words) in [
        (["bind", "0000:00:04.1"], "vfio-pci has it already"),
        (["unbind", "0000:00:04.0"], "vfio-pci does not have it"),
    ] {
        let output = ioat_after(&then(bound), &arguments).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), DONE, "{said}");
        assert!(said.contains(words), "{said}");
    }
}

#[test]
fn what_still_stands_in_the_way_is_said_after_binding() {
    let bound = "driver 0000:00:04.1 vfio-pci";
    let output = ioat_after(&then(bound), &["bind", "0000:00:04.1"]).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    for words in ["cannot be opened yet", "IOMMU group 8", "no /dev/vfio/vfio"] {
        assert!(said.contains(words), "no `{words}` in: {said}");
    }
}
