//! All jobs as PBS shows them: single jobs, arrays, and the arrays' elements.

use std::collections::BTreeMap;

use crate::array::{Array, Indices};
use crate::failure::{Error, Failure};
use crate::job_id::{JobId, Part};

use super::job::{Job, State};

/// All jobs at one moment.
#[derive(Debug)]
pub struct Queue {
    jobs: Vec<Job>,
    /// The moment, in seconds since 1970.
    pub now: u64,
}

/// A line of qstat's: a job, an array or an element.
#[derive(Debug, Clone)]
pub struct Entry<'a> {
    /// PBS's identifier.
    pub id: JobId,
    /// Slurm's job; of an array the part that has not started, or its first element.
    pub job: &'a Job,
    /// PBS's state.
    pub state: State,
    /// The states of an array's elements.
    pub elements: Vec<(u32, State)>,
}

impl Queue {
    /// Asks Slurm.
    pub fn load() -> Result<Self, Failure> {
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |time| time.as_secs());
        Ok(Self::of(super::job::all()?, now))
    }

    /// The queue of these jobs.
    pub fn of(mut jobs: Vec<Job>, now: u64) -> Self {
        jobs.sort_by_key(|job| (job.array().unwrap_or(job.job_id), job.index(), job.job_id));
        Self { jobs, now }
    }

    /// All entries in order, an array's elements after it if they are wanted.
    pub fn entries(&self, with_elements: bool) -> Vec<Entry<'_>> {
        let mut numbers: Vec<u32> = self
            .jobs
            .iter()
            .map(|job| job.array().unwrap_or(job.job_id))
            .collect();
        numbers.dedup();
        let mut entries = Vec::new();
        for number in numbers {
            let Some(whole) = self.whole(number) else {
                continue;
            };
            let is_array = whole.id.part == Part::Array;
            entries.push(whole);
            if with_elements && is_array {
                entries.extend(self.elements(number));
            }
        }
        entries
    }

    /// What an identifier names: one entry, or several elements.
    pub fn find(&self, id: &JobId) -> Result<Vec<Entry<'_>>, Failure> {
        let unknown = || Failure::about(Error::UnknownJob, id.full());
        let whole = self.whole(id.number).ok_or_else(unknown)?;
        match &id.part {
            Part::Whole => Ok(vec![whole]),
            Part::Array if whole.id.part == Part::Array => Ok(vec![whole]),
            Part::Array => Err(unknown()),
            Part::Elements(indices) => {
                let named = |entry: &Entry| match &entry.id.part {
                    Part::Elements(own) => own.all().iter().all(|index| indices.contains(*index)),
                    _ => false,
                };
                let found: Vec<_> = self.elements(id.number).into_iter().filter(named).collect();
                if found.is_empty() {
                    return Err(unknown());
                }
                Ok(found)
            }
        }
    }

    fn whole(&self, number: u32) -> Option<Entry<'_>> {
        let of_array: Vec<&Job> = self
            .jobs
            .iter()
            .filter(|job| job.array() == Some(number))
            .collect();
        let Some(first) = of_array.first() else {
            let job = self
                .jobs
                .iter()
                .find(|job| job.job_id == number && job.array().is_none())?;
            return Some(Entry {
                id: JobId {
                    number,
                    part: Part::Whole,
                },
                job,
                state: job.state(self.now),
                elements: Vec::new(),
            });
        };
        let elements: Vec<(u32, State)> = self
            .elements(number)
            .iter()
            .filter_map(|entry| Some((index_of(entry)?, entry.state)))
            .collect();
        let waiting = of_array.iter().find(|job| job.index().is_none());
        let state = if elements.iter().all(|(_, state)| *state == State::Finished) {
            State::Finished
        } else if elements.iter().any(|(_, state)| !state.is_pending()) {
            State::Begun
        } else {
            waiting.unwrap_or(first).state(self.now)
        };
        Some(Entry {
            id: JobId {
                number,
                part: Part::Array,
            },
            job: waiting.unwrap_or(first),
            state,
            elements,
        })
    }

    /// An array's elements by their indices.
    fn elements(&self, number: u32) -> Vec<Entry<'_>> {
        let mut elements = BTreeMap::new();
        for job in self.jobs.iter().filter(|job| job.array() == Some(number)) {
            let indices = match job.index() {
                Some(index) => vec![index],
                None => waiting_indices(&job.array_task_string),
            };
            for index in indices {
                let entry = Entry {
                    id: JobId {
                        number,
                        part: Part::Elements(Indices::one(index)),
                    },
                    job,
                    state: job.state(self.now),
                    elements: Vec::new(),
                };
                elements.insert(index, entry);
            }
        }
        elements.into_values().collect()
    }
}

impl Entry<'_> {
    /// The index of an element.
    pub fn index(&self) -> Option<u32> {
        index_of(self)
    }

    /// What Slurm calls it.
    pub fn slurm_id(&self) -> String {
        match self.index() {
            Some(index) => format!("{}_{index}", self.id.number),
            None => self.id.number.to_string(),
        }
    }

    /// Its name; Torque gives elements names of their own.
    pub fn name(&self) -> String {
        match self.index() {
            Some(index) if self.job.note().torque => format!("{}-{index}", self.job.name),
            _ => self.job.name.clone(),
        }
    }

    /// Seconds that it has run; an array runs no time of its own.
    pub fn ran_seconds(&self, now: u64) -> u64 {
        match self.id.part {
            Part::Array => 0,
            _ => self.job.ran_seconds(now),
        }
    }
}

fn index_of(entry: &Entry) -> Option<u32> {
    match &entry.id.part {
        Part::Elements(indices) => indices.all().first().copied(),
        _ => None,
    }
}

fn waiting_indices(text: &str) -> Vec<u32> {
    Array::parse(text).map_or_else(Vec::new, |array| array.indices.all().into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::super::Number;
    use super::super::job::tests::job;
    use super::*;

    fn queue() -> Queue {
        let element = |id, index, state| Job {
            array_job_id: Number::of(5),
            array_task_id: Number::of(index),
            ..job(id, state)
        };
        let waiting = Job {
            array_job_id: Number::of(5),
            array_task_string: "3-4%1".into(),
            ..job(5, "PENDING")
        };
        Queue::of(
            vec![
                waiting,
                job(9, "PENDING"),
                element(7, 2, "RUNNING"),
                element(6, 1, "COMPLETED"),
            ],
            100,
        )
    }

    fn ids(entries: &[Entry]) -> Vec<String> {
        entries
            .iter()
            .map(|entry| format!("{} {}", entry.id, entry.state.letter()))
            .collect()
    }

    #[test]
    fn arrays_are_one_line_or_all_their_elements() {
        assert_eq!(ids(&queue().entries(false)), ["5[] B", "9 Q"]);
        assert_eq!(
            ids(&queue().entries(true)),
            ["5[] B", "5[1] F", "5[2] R", "5[3] Q", "5[4] Q", "9 Q"]
        );
    }

    #[test]
    fn identifiers_find_what_they_name() {
        let queue = queue();
        let find = |text: &str| queue.find(&JobId::parse(text, "head").unwrap());
        assert_eq!(ids(&find("5").unwrap()), ["5[] B"]);
        assert_eq!(ids(&find("5[2-3]").unwrap()), ["5[2] R", "5[3] Q"]);
        assert_eq!(find("5[3]").unwrap()[0].slurm_id(), "5_3");
        for unknown in ["9[]", "5[8]", "6", "77"] {
            assert_eq!(find(unknown).unwrap_err().code, 153, "{unknown}");
        }
    }
}
