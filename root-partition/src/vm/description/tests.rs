use super::*;
use proptest::prelude::*;
use vsp::switch::words::Mirror;

fn error(text: &str) -> String {
    Description::read("vms/web.toml", text.as_bytes())
        .unwrap_err()
        .to_string()
}

const LEAST: &str = "memory = \"64MiB\"\nkernel = \"kernels/hello\"\n";

#[test]
fn what_is_not_said_has_a_default() {
    let description = Description::read("vms/web.toml", LEAST.as_bytes()).unwrap();
    assert_eq!(
        description,
        Description {
            name: "web".into(),
            processors: 1,
            memory: 64 << 20,
            kernel: "kernels/hello".into(),
            modules: Vec::new(),
            command_line: String::new(),
            console: 0,
            weight: 100,
            cap: None,
            reserve: 0,
            devices: Vec::new(),
            disks: Vec::new(),
            networks: Vec::new(),
            triple_fault: TripleFault::Crash,
            msrs: MsrPolicy::FAULT,
            cpuid: Vec::new(),
            loopback: false,
            enlightenments: Enlightenments::ALL,
        }
    );
}

#[test]
fn everything_can_be_said() {
    let text = "# A server.\nname = \"a-1\"\nprocessors = 4\nmemory = \"2 GiB\"\nkernel = \"k\"\n\
        modules = [\"a\", 'b']\ncommand_line = \"quiet\"\nconsole = \"com2\"\nweight = 0x10\ncap = 50\nreserve = 25\n\
        devices = [\"echo\"]\ntriple_fault = \"reset\"\n[[disk]]\nsource = \"nvme0p1\"\n[[disk]]\nsource = \"archive:a.iso\"\ndvd = true\n\
        [enlightenments]\nipi = false\ntlb_flush = true\n";
    let description = Description::read("x.toml", text.as_bytes()).unwrap();
    assert_eq!(description.modules, ["a", "b"]);
    assert_eq!(description.devices, ["echo"]);
    let disk = |source: &str, read_only, dvd| DiskDescription {
        source: Some(source.into()),
        read_only,
        dvd,
    };
    assert_eq!(
        description.disks,
        [disk("nvme0p1", false, false), disk("archive:a.iso", true, true)]
    );
    assert_eq!((description.memory, description.processors), (2 << 30, 4));
    assert_eq!(
        (description.weight, description.cap, description.reserve),
        (16, Some(50), 25)
    );
    assert_eq!(
        (description.console, description.triple_fault),
        (1, TripleFault::Reset)
    );
    assert_eq!(description.name, "a-1");
    let off: Vec<_> = description
        .enlightenments
        .off()
        .map(|switch| switch.key)
        .collect();
    assert_eq!(off, ["ipi"]);
}

#[test]
fn each_mistake_is_named_with_its_line_and_what_would_be_right() {
    for (text, message) in [
        (
            "name = \"web\"\n\n\n\n\n\nmemory = \"64\"",
            "vms/web.toml:7: memory = \"64\": give a unit, as in \"64MiB\"",
        ),
        (
            "memory = 64",
            "vms/web.toml:1: memory = 64: give a size with its unit in quotes, as in \"64MiB\"",
        ),
        (
            "memory = \"64MB\"",
            "vms/web.toml:1: memory = \"64MB\": give a size in KiB, MiB or GiB, as in \"64MiB\"",
        ),
        (
            "memory = \"99999999999999999999GiB\"",
            "vms/web.toml:1: memory = \"99999999999999999999GiB\": give a multiple of 4KiB from \"1MiB\" to \"1024GiB\"",
        ),
        (
            "\nmemroy = \"64MiB\"",
            "vms/web.toml:2: unknown key 'memroy': did you mean 'memory'?",
        ),
        (
            "[floppy]\nsize = 4",
            "vms/web.toml:1: unknown key 'floppy': there are name, processors, memory, kernel, modules, \
             command_line, console, weight, cap, reserve, devices, disk, network, triple_fault, unknown_msr, loopback, cpuid, msr, \
             enlightenments",
        ),
        (
            "memory = \"1GiB\"\nkernel = \"k\"\n[enlightenments]\ntlb_flsh = true",
            "vms/web.toml:4: unknown key 'tlb_flsh': did you mean 'tlb_flush'?",
        ),
        (
            "memory = \"1GiB\"\nkernel = \"k\"\n[enlightenments]\nipi = \"off\"",
            "vms/web.toml:4: ipi = \"off\": give true or false",
        ),
        (
            "memory = \"1GiB\"\nkernel = \"k\"\nenlightenments = false",
            "vms/web.toml:3: enlightenments = false: give a table of switches, as in [enlightenments] and \
             tlb_flush = false",
        ),
        (
            "kernel = \"k\"",
            "vms/web.toml:1: memory is missing: give one, as in memory = \"64MiB\"",
        ),
        (
            "memory = \"64MiB\"",
            "vms/web.toml:1: kernel is missing: give one, as in kernel = \"kernels/hello\"",
        ),
        (
            "name = \"a b\"",
            "vms/web.toml:1: name = \"a b\": a name has 1 to 32 letters, digits, '-', '_' or '.', and does not \
             begin with '-'",
        ),
    ] {
        assert_eq!(error(text), message);
    }
}

#[test]
fn values_outside_their_range_are_refused() {
    for (line, advice) in [
        (
            "devices = [\"echo\", \"echo\"]",
            "devices = [\"echo\", \"echo\"]: give a list of devices, each once, of: echo",
        ),
        (
            "devices = [\"floppy\"]",
            "devices = [\"floppy\"]: give a list of devices, each once, of: echo",
        ),
        ("processors = 0", "processors = 0: give a number from 1 to 64"),
        (
            "processors = \"2\"",
            "processors = \"2\": give a number from 1 to 64",
        ),
        ("weight = -1", "weight = -1: give a number from 1 to 10000"),
        ("cap = 101", "cap = 101: give a number from 1 to 100"),
        (
            "cap = 10\nreserve = 20",
            "reserve = 20: it is more than the cap of 10",
        ),
        (
            "console = \"com3\"",
            "console = \"com3\": give \"com1\" or \"com2\"",
        ),
        (
            "modules = \"a\"",
            "modules = \"a\": give a list of up to 32 files, as in [\"disks/root.img\"]",
        ),
        (
            "command_line = 1",
            "command_line = 1: give a text in quotes, as in command_line = \"…\"",
        ),
    ] {
        let message = error(&format!("{LEAST}{line}"));
        assert!(message.ends_with(advice), "{message}");
    }
    assert!(error("kernel = \"/k\"\nmemory = \"64MiB\"").contains("give a file of the boot archive"));
}

#[test]
fn what_is_no_toml_is_told_with_its_line() {
    let message = error("name = \"web\"\nprocessors == 2\n");
    assert!(message.starts_with("vms/web.toml:2: "), "{message}");
    assert!(
        Description::read("x", b"\nname = \"\xff\"")
            .unwrap_err()
            .to_string()
            .starts_with("x:2: ")
    );
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "[a-z_=\"\\[\\]{}0-9 .\\n#'\\\\-]{0,120}") {
        let _ = Description::read("vms/x.toml", format!("{LEAST}{text}").as_bytes());
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        let _ = Description::read("vms/x.toml", &bytes);
    }
}

#[test]
fn a_drive_may_be_empty() {
    let text = [LEAST, "[[disk]]\ndvd = true\n"].concat();
    let description = Description::read("vms/web.toml", text.as_bytes()).unwrap();
    let drive = DiskDescription {
        source: None,
        read_only: true,
        dvd: true,
    };
    assert_eq!(description.disks, [drive]);
}

#[test]
fn disks_that_make_no_sense_are_refused() {
    for (lines, message) in [
        (
            "[disk]\nsource = \"nvme0\"",
            "disk = [disk]: give tables, as in [[disk]] and source = \"nvme0\"",
        ),
        (
            "[[disk]]",
            "a [[disk]] without source: give one, as in source = \"nvme0\", or dvd = true for an empty drive",
        ),
        (
            "[[disk]]\nsource = \"\"",
            "source = \"\": give a disk, as in \"nvme0\", \"archive:a.iso\" or \"ram:64MiB\"",
        ),
        (
            "[[disk]]\nsource = \"a\"\nread_only = 1",
            "read_only = 1: give true or false",
        ),
        (
            "[[disk]]\nsource = \"a\"\nreadonly = true",
            "unknown key 'readonly': did you mean 'read_only'?",
        ),
        (
            "[[disk]]\nsource = \"a\"\nread_only = false\ndvd = true",
            "read_only = false: the medium of a DVD drive is always read-only",
        ),
    ] {
        let message_seen = error(&format!("{LEAST}{lines}"));
        assert!(message_seen.ends_with(message), "{message_seen}");
    }
}

#[test]
fn a_network_card_needs_nothing_but_its_table() {
    let text = "memory = \"1MiB\"\nkernel = \"k\"\n[[network]]\n\
        [[network]]\nswitch = \"lab\"\nmac = \"02-00-00-00-00-2a\"\nvlan = 7\n\
        trunk = \"8-9\"\nlimit = \"5Mbit\"\nguard = \"none\"\nmirror = \"takes\"\n";
    let description = Description::read("x.toml", text.as_bytes()).unwrap();
    let [plain, full] = description.networks.as_slice() else {
        panic!("{:?}", description.networks);
    };
    assert_eq!(*plain, NetworkDescription::on("default"));
    assert_eq!(full.switch, "lab");
    assert_eq!(full.address.map(|address| address.0), Some([2, 0, 0, 0, 0, 42]));
    assert_eq!(full.vlan.describe(), "8-9 native 7");
    assert_eq!(full.limit.map(|limit| limit.bits_per_second), Some(5_000_000));
    assert!(full.guard.is_empty());
    assert_eq!(full.mirror, Mirror::Takes);
}

#[test]
fn network_cards_that_make_no_sense_are_refused() {
    for (table, message) in [
        ("switch = \"-\"", "switch = \"-\": a name has"),
        (
            "mac = \"01:00:00:00:00:01\"",
            "mac = \"01:00:00:00:00:01\": give a card's address",
        ),
        ("mac = \"1\"", "mac = \"1\": give a card's address"),
        ("vlan = 4095", "vlan = 4095: give a number from 1 to 4094"),
        ("trunk = \"x\"", "trunk = \"x\": give VLANs, as in"),
        ("limit = \"5\"", "limit = \"5\": give a rate in"),
        ("guard = \"x\"", "guard = \"x\": give 'all'"),
        ("mirror = \"x\"", "mirror = \"x\": give sent"),
        ("switsh = \"a\"", "unknown key 'switsh': did you mean 'switch'?"),
    ] {
        let text = alloc::format!("memory = \"1MiB\"\nkernel = \"k\"\n[[network]]\n{table}\n");
        let error = Description::read("x.toml", text.as_bytes()).unwrap_err();
        assert_eq!(error.line, 4);
        assert!(error.what.starts_with(message), "{}", error.what);
    }
}

#[test]
fn feature_masks_and_msr_rules_are_read() {
    let text = format!(
        "{LEAST}unknown_msr = \"ignore\"\n[[cpuid]]\nleaf = 7\nsubleaf = 0\nregister = \"ebx\"\nclear = 0x20\n\
         [[cpuid]]\nleaf = 1\nregister = \"ecx\"\nset = 2\n\
         [[msr]]\nnumber = 0x35\nread = 0x20002\nwrite = \"fault\"\n[[msr]]\nnumber = 0xce\nwrite = \"ignore\"\n"
    );
    let description = Description::read("x.toml", text.as_bytes()).unwrap();
    let mask = |leaf, subleaf, register, clear, set| CpuidMask {
        leaf,
        subleaf,
        register,
        clear,
        set,
    };
    assert_eq!(
        description.cpuid,
        [mask(7, Some(0), 1, 0x20, 0), mask(1, None, 2, 0, 2)]
    );
    let msrs = &description.msrs;
    assert!(!msrs.is_plain());
    assert_eq!(msrs.read(0x35), MsrAnswer::Value(0x20002));
    assert_eq!(
        (msrs.write(0x35), msrs.write(0xce)),
        (MsrAnswer::Fault, MsrAnswer::Value(0))
    );
    assert_eq!(
        (msrs.read(0xce), msrs.read(0x123)),
        (MsrAnswer::Value(0), MsrAnswer::Value(0))
    );
}

#[test]
fn masks_of_one_leaf_become_one_policy() {
    let text = format!(
        "{LEAST}[[cpuid]]\nleaf = 7\nregister = \"ebx\"\nclear = 0x20\n[[cpuid]]\nleaf = 7\nregister = \"ebx\"\nset = 1\n\
         [[cpuid]]\nleaf = 0x40000003\nregister = \"eax\"\nclear = 0x200\n[enlightenments]\nsynthetic_timers = false\n"
    );
    let description = Description::read("x.toml", text.as_bytes()).unwrap();
    let id = hypercall_api::id::PartitionId(5);
    let mut policies = description.enlightenments.cpuid(id);
    description
        .cpuid
        .iter()
        .for_each(|mask| mask.add_to(&mut policies, id));
    let seen: Vec<_> = policies
        .iter()
        .map(|policy| (policy.leaf, policy.eax, policy.ebx))
        .collect();
    assert_eq!(seen, [(0x4000_0003, [0, 0x208], [0; 2]), (7, [0; 2], [1, 0x21])]);
}

#[test]
fn masks_and_rules_that_make_no_sense_are_refused_with_their_line() {
    for (lines, message) in [
        (
            "[[cpuid]]\nregister = \"eax\"",
            "web.toml:3: a [[cpuid]] without leaf: give one, as in leaf = 7",
        ),
        (
            "[[cpuid]]\nleaf = 7",
            "web.toml:3: a [[cpuid]] without register: give one, as in register = \"ebx\"",
        ),
        (
            "[[cpuid]]\nleaf = 7\nregister = \"rax\"",
            "web.toml:5: register = \"rax\": give \"eax\" or \"ebx\" or \"ecx\" or \"edx\"",
        ),
        (
            "[[cpuid]]\nleaf = 7\nregister = \"eax\"\nclear = 6\nset = 3",
            "web.toml:7: set = 3: bits 0x2 cannot be cleared and set at once",
        ),
        (
            "[[cpuid]]\nleaf = 0x100000000",
            "web.toml:4: leaf = 0x100000000: give a number from 0 to 4294967295",
        ),
        (
            "[[cpuid]]\nleaff = 1",
            "web.toml:4: unknown key 'leaff': did you mean 'leaf'?",
        ),
        (
            "[[msr]]\nread = 1",
            "web.toml:3: an [[msr]] without number: give one, as in number = 0x35",
        ),
        (
            "[[msr]]\nnumber = 1\nwrite = \"drop\"",
            "web.toml:5: write = \"drop\": give \"fault\" or \"ignore\"",
        ),
        (
            "[[msr]]\nnumber = 1\n[[msr]]\nnumber = 1",
            "web.toml:5: MSR 0x1 has a rule already",
        ),
        (
            "msr = 1",
            "web.toml:3: msr = 1: give tables, as in [[msr]] and number = 0x35",
        ),
        (
            "unknown_msr = \"zero\"",
            "web.toml:3: unknown_msr = \"zero\": give \"fault\" or \"ignore\"",
        ),
        ("loopback = 1", "web.toml:3: loopback = 1: give true or false"),
    ] {
        assert_eq!(error(&format!("{LEAST}{lines}")), format!("vms/{message}"));
    }
}
