//! `-W depend=`: after which other jobs a job may start.

use crate::failure::{Error, Failure};
use crate::job_id::{JobId, Part};

/// PBS's words for a dependency with Slurm's, and Torque's words for one on an array.
const KINDS: &[(&str, &str)] = &[
    ("after", "after"),
    ("afterok", "afterok"),
    ("afternotok", "afternotok"),
    ("afterany", "afterany"),
    ("afterstartarray", "after"),
    ("afterokarray", "afterok"),
    ("afternotokarray", "afternotok"),
    ("afteranyarray", "afterany"),
];

/// PBS's words for dependencies that other jobs get by this one: Slurm has nothing of the kind.
const UNSUPPORTED: &[&str] = &[
    "on",
    "before",
    "beforeok",
    "beforenotok",
    "beforeany",
    "runone",
    "synccount",
    "syncwith",
    "beforestartarray",
    "beforeokarray",
    "beforenotokarray",
    "beforeanyarray",
];

/// Dependencies that must all hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dependencies(Vec<Dependency>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Dependency {
    kind: &'static str,
    jobs: Vec<JobId>,
}

impl Dependencies {
    /// Parses `kind:job[:job...][,kind:job...]`.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        let one = |text: &str| {
            let (kind, jobs) = text.split_once(':').ok_or(Failure::illegal('W'))?;
            if UNSUPPORTED.contains(&kind) {
                return Err(Failure::usage(format!(
                    "illegal -W value: depend={kind} is not supported here"
                )));
            }
            let kind = KINDS
                .iter()
                .find(|(pbs, _)| *pbs == kind)
                .map(|(_, slurm)| *slurm)
                .ok_or(Failure::illegal('W'))?;
            let jobs = jobs.split(':').map(job).collect::<Result<_, _>>()?;
            Ok(Dependency { kind, jobs })
        };
        text.split(',').map(one).collect::<Result<_, _>>().map(Self)
    }

    /// All jobs that it names.
    pub fn jobs(&self) -> impl Iterator<Item = &JobId> {
        self.0.iter().flat_map(|dependency| &dependency.jobs)
    }

    /// In Slurm's spelling.
    pub fn slurm(&self) -> String {
        let one = |dependency: &Dependency| {
            let jobs = dependency.jobs.iter().map(|job| match &job.part {
                Part::Elements(indices) => format!(":{}_{indices}", job.number),
                Part::Whole | Part::Array => format!(":{}", job.number),
            });
            std::iter::once(dependency.kind.to_owned())
                .chain(jobs)
                .collect::<String>()
        };
        self.0.iter().map(one).collect::<Vec<_>>().join(",")
    }
}

/// Slurm's spelling of unfulfilled dependencies, such as `afterok:5(unfulfilled)`, in PBS's.
pub fn from_slurm(text: &str, server: &str) -> String {
    let mut spelled = Vec::new();
    for one in text.split([',', '?']).filter(|one| !one.is_empty()) {
        let bare = one.split('(').next().unwrap_or(one);
        let mut fields = bare.split(':');
        let mut words = vec![fields.next().unwrap_or_default().to_owned()];
        words.extend(fields.map(|job| match job.split_once('_') {
            Some((number, "*")) => format!("{number}[].{server}"),
            Some((number, index)) => format!("{number}[{index}].{server}"),
            None => format!("{job}.{server}"),
        }));
        spelled.push(words.join(":"));
    }
    spelled.join(",")
}

/// One element of an array at most: Slurm's spelling has no sets.
fn job(text: &str) -> Result<JobId, Failure> {
    let id = JobId::operand(text).map_err(|failure| match failure.code {
        crate::failure::USAGE => Failure::illegal('W'),
        _ => Failure::because(Error::BadDependency, format_args!("unknown job {text}")),
    })?;
    match &id.part {
        Part::Elements(indices) if indices.all().len() > 1 => Err(Failure::illegal('W')),
        _ => Ok(id),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn dependencies_are_spelled_as_slurm_does() {
        for (pbs, slurm) in [
            ("afterok:1", "afterok:1"),
            ("afterok:1.head:2.head,afterany:3", "afterok:1:2,afterany:3"),
            ("afterokarray:4[].head", "afterok:4"),
            ("afternotok:4[2].head", "afternotok:4_2"),
        ] {
            assert_eq!(Dependencies::parse(pbs).unwrap().slurm(), slurm, "{pbs}");
        }
    }

    #[test]
    fn what_is_no_dependency_is_refused() {
        for text in [
            "",
            "afterok",
            "afterok:",
            "x:1",
            "afterok:x",
            "afterok:1,",
            "before:1",
            "on:2",
            "afterok:4[1-2]",
        ] {
            assert_eq!(Dependencies::parse(text).unwrap_err().code, 2, "{text}");
        }
        assert_eq!(
            Dependencies::parse("afterok:1.elsewhere").unwrap_err().code,
            206
        );
    }

    #[test]
    fn slurms_spelling_is_read_back() {
        assert_eq!(
            from_slurm(
                "afterok:5(unfulfilled),afterany:6_2(unfulfilled):7_*",
                "head"
            ),
            "afterok:5.head,afterany:6[2].head"
        );
        assert_eq!(from_slurm("afterok:7_*", "head"), "afterok:7[].head");
    }

    proptest! {
        #[test]
        fn anything_is_parsed_or_refused(text in "(afterok|afterany|on|)[:,.0-9a-z\\[\\]]{0,12}") {
            let _ = Dependencies::parse(&text);
            let _ = from_slurm(&text, "head");
        }
    }
}
