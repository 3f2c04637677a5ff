//! Where a job's output goes.

use crate::bed::desk;

fn number(id: &str) -> &str {
    id.split(['.', '[']).next().unwrap()
}

#[test]
fn output_and_errors_lie_beside_the_script() {
    let desk = desk("files");
    let id = desk.submit("-N files", "echo out; echo err >&2");
    desk.finished(&id);
    let n = number(&id);
    assert_eq!(desk.read(&format!("files.o{n}")), "out");
    assert_eq!(desk.read(&format!("files.e{n}")), "err");
    let path = |letter: char| format!("head:{}/files.{letter}{n}", desk.directory());
    desk.has(
        &id,
        &[("Output_Path", &path('o')), ("Error_Path", &path('e'))],
    );
}

#[test]
fn output_and_errors_are_joined() {
    let desk = desk("join");
    let both = "echo out; echo err >&2";
    for (join, letter) in [("oe", 'o'), ("eo", 'e')] {
        let id = desk.submit(&format!("-N joined -j {join}"), both);
        desk.finished(&id);
        assert_eq!(
            desk.read(&format!("joined.{letter}{}", number(&id))),
            "out\nerr"
        );
        assert_eq!(desk.ok(&format!("ls | grep -c '{}$'", number(&id))), "1");
        desk.has(&id, &[("Join_Path", join)]);
    }
}

#[test]
fn output_goes_where_it_was_said() {
    let desk = desk("paths");
    desk.ok("mkdir logs 'a b'");
    let id = desk.submit("-N x -o logs -e w1:logs/errors", "echo out; echo err >&2");
    desk.finished(&id);
    assert_eq!(desk.read(&format!("logs/x.o{}", number(&id))), "out");
    assert_eq!(desk.read("logs/errors"), "err");
    let id = desk.submit("-N x -j oe -o 'a b/100%.$PBS_JOBID'", "echo odd");
    desk.finished(&id);
    assert_eq!(desk.read(&format!("a b/100%.{id}")), "odd");
    // A second run of the same writes the file anew.
    for text in ["first and longer", "second"] {
        let id = desk.submit("-j oe -o same", &format!("echo {text}"));
        desk.finished(&id);
        assert_eq!(desk.read("same"), text);
    }
}

#[test]
fn kept_output_lies_in_the_home_directory() {
    let desk = desk("keep");
    let id = desk.submit("-N kept -k oe", "echo out; echo err >&2");
    desk.finished(&id);
    let n = number(&id);
    assert_eq!(desk.read(&format!("/home/alice/kept.o{n}")), "out");
    assert_eq!(desk.read(&format!("/home/alice/kept.e{n}")), "err");
}

#[test]
fn torques_arrays_have_files_with_dashes() {
    let desk = desk("torque-array");
    let id = desk.submit(
        "-N arr -t 1,3-5%2 -j oe",
        "echo $PBS_ARRAYID $PBS_JOBID $PBS_JOBNAME",
    );
    assert!(id.ends_with("[].head"), "{id}");
    desk.finished(&id);
    let n = number(&id);
    for index in [1, 3, 4, 5] {
        let text = desk.read(&format!("arr.o{n}-{index}"));
        assert_eq!(text, format!("{index} {n}[{index}].head arr-{index}"));
    }
    assert_eq!(desk.ok("ls arr.* | wc -l"), "4");
}

#[test]
fn openpbs_arrays_have_files_with_dots() {
    let desk = desk("openpbs-array");
    let id = desk.submit(
        "-N arr -J 2-6:2 -j oe",
        "echo $PBS_ARRAY_INDEX $PBS_ARRAY_ID $PBS_JOBNAME",
    );
    desk.finished(&id);
    let n = number(&id);
    for index in [2, 4, 6] {
        let text = desk.read(&format!("arr.o{n}.{index}"));
        assert_eq!(text, format!("{index} {n}[].head arr"));
    }
    let id = desk.submit(
        "-J 1-2 -j oe -o out.^array_index^.txt",
        "echo $PBS_ARRAY_INDEX",
    );
    desk.finished(&id);
    assert_eq!(desk.read("out.2.txt"), "2");
    assert_eq!(desk.ok("ls arr.* | wc -l"), "3");
}
