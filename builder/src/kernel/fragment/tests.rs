//! What a fragment may say, what it may not, and what Kconfig may not do to it.

use proptest::prelude::*;

use super::*;

const GOOD: &str = "\
# What this fragment is.

# Processors come in numbers.
CONFIG_SMP=y
CONFIG_NR_CPUS=64

# CONFIG_MODULES would be a comment, were it not for what follows here:
# nothing is loaded.
# CONFIG_MODULES is not set
CONFIG_LOCALVERSION=\"-wow\"
CONFIG_BASE=0x1f00
";

fn merged(texts: &[(&str, &str)]) -> Result<Merged, FragmentError> {
    let mut merged = Merged::default();
    for (file, text) in texts {
        merged.add(parse(Path::new(file), text)?)?;
    }
    Ok(merged)
}

#[track_caller]
fn refused(texts: &[(&str, &str)], place: &str, message: &str) {
    let text = merged(texts).expect_err("must be refused").to_string();
    assert!(text.starts_with(place) && text.contains(message), "{text}");
}

#[test]
fn a_fragment_becomes_sorted_options() {
    assert_eq!(
        merged(&[("a", GOOD)]).unwrap().canonical(),
        "CONFIG_BASE=0x1f00\nCONFIG_LOCALVERSION=\"-wow\"\n# CONFIG_MODULES is not set\n\
         CONFIG_NR_CPUS=64\nCONFIG_SMP=y\n"
    );
}

#[test]
fn mistakes_are_named_with_file_and_line() {
    refused(&[("f", "CONFIG_SMP=y\n")], "f:1: ", "no reason");
    refused(
        &[("f", "# Why.\nCONFIG_SMP=y\n\nCONFIG_NET=y\n")],
        "f:4: ",
        "no reason",
    );
    refused(&[("f", "# Why.\nCONFIG_SMP=n\n")], "f:2: ", "is not set");
    refused(&[("f", "# Why.\nCONFIG_SMP=m\n")], "f:2: ", "no modules");
    refused(&[("f", "# Why.\nCONFIG_SMP=yes\n")], "f:2: ", "no value");
    refused(&[("f", "# Why.\nCONFIG_SMP\n")], "f:2: ", "no option");
    refused(&[("f", "# Why.\nSMP=y\n")], "f:2: ", "no option");
    refused(
        &[("f", "# Why.\nCONFIG_SMP=y # because\n")],
        "f:2: ",
        "no value",
    );
    refused(&[("f", "# Why.\nCONFIG_SMP=y \n")], "f:2: ", "spaces");
    refused(
        &[("f", "# Why.\n#CONFIG_SMP is not set\n")],
        "f:2: ",
        "neither",
    );
    refused(&[("f", "# Why.\n# CONFIG_SMP=y\n")], "f:2: ", "neither");
    refused(
        &[("f", "# Why.\nCONFIG_L=\"a\\\"b\"\n")],
        "f:2: ",
        "no value",
    );
}

#[test]
fn fragments_may_agree_but_not_contradict() {
    let yes = "# Why.\nCONFIG_SMP=y\n";
    let no = "\n# Why not.\n# CONFIG_SMP is not set\n";
    assert_eq!(
        merged(&[("a", yes), ("b", yes)]).unwrap().canonical(),
        "CONFIG_SMP=y\n"
    );
    refused(
        &[("a", yes), ("b", no)],
        "b:3: ",
        "contradicts CONFIG_SMP=y in a:2",
    );
}

#[test]
fn what_kconfig_keeps_passes() {
    let config =
        "CONFIG_SMP=y\nCONFIG_NR_CPUS=64\nCONFIG_LOCALVERSION=\"-wow\"\nCONFIG_BASE=0x1f00\n";
    let merged = merged(&[("a", GOOD)]).unwrap();
    merged.check(config).unwrap();
    merged
        .check(&format!("{config}# CONFIG_MODULES is not set\n"))
        .unwrap();
}

#[test]
fn what_kconfig_loses_is_named_with_its_place() {
    let config =
        "# CONFIG_SMP is not set\nCONFIG_NR_CPUS=2\nCONFIG_MODULES=y\nCONFIG_BASE=0x1f00\n";
    let lost = merged(&[("a", GOOD)]).unwrap().check(config).unwrap_err();
    let text = lost.to_string();
    for line in [
        "a:4: CONFIG_SMP=y (became: not set)",
        "a:5: CONFIG_NR_CPUS=64 (became: =2)",
        "a:9: # CONFIG_MODULES is not set (became: =y)",
        "a:10: CONFIG_LOCALVERSION=\"-wow\" (became: absent",
    ] {
        assert!(text.contains(line), "{text}");
    }
    assert_eq!(lost.0.len(), 4);
}

#[test]
fn the_fragments_of_this_repository_merge() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut merged = Merged::default();
    for name in ["base", "qemu", "vmware", "router"] {
        let file = Path::new("kernel-config").join(format!("{name}.config"));
        let text = std::fs::read_to_string(root.join(&file)).unwrap();
        merged.add(parse(&file, &text).unwrap()).unwrap();
    }
    assert!(merged.canonical().contains("CONFIG_VIRTIO_NET=y\n"));
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in "(#? ?CONFIG_[A-Z]{0,3}( is not set|=[yn0-9\"]{0,3})?|# \\PC{0,9}|\\PC{0,12}|\n){0,12}") {
        let _ = parse(Path::new("f"), &text);
    }

    #[test]
    fn the_canonical_text_satisfies_itself(names in proptest::collection::btree_map("[A-Z]{1,6}", proptest::option::of(0u32..99), 0..9)) {
        let options = names.iter().map(|(name, value)| Wanted {
            name: name.clone(),
            value: value.map_or(Value::Unset, |number| Value::Set(number.to_string())),
            origin: Origin { file: "f".into(), line: 1 },
        });
        let mut merged = Merged::default();
        merged.add(options.collect()).unwrap();
        prop_assert_eq!(merged.check(&merged.canonical()), Ok(()));
    }
}
