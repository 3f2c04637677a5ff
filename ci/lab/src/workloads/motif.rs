//! DNA sequences with a motif planted in each, and glam2's word on where it is.

use anyhow::{Context, Result, bail};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

const BASES: &[u8; 4] = b"ACGT";

/// Letters of a motif.
const MOTIF: usize = 20;

/// How often a letter of it is another: in nature no two sites are alike.
const MUTATED: f64 = 0.1;

/// How much of a motif an alignment must cover to have found it.
const COVERED: usize = MOTIF / 2;

/// Sequences that share a motif.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planted {
    sequences: Vec<Vec<u8>>,
    /// Where it begins in each.
    places: Vec<usize>,
}

/// One of the alignments in glam2's output.
#[derive(Debug, Clone, PartialEq)]
pub struct Alignment {
    /// The higher, the less it is like chance.
    pub score: f64,
    /// The sequence's name, and its first and last letter in it, counted from 1.
    rows: Vec<(String, usize, usize)>,
}

impl Planted {
    /// The same for the same seed.
    pub fn new(seed: u64, sequences: usize, letters: usize) -> Self {
        assert!(letters > MOTIF, "a motif has {MOTIF} letters");
        let mut rng = StdRng::seed_from_u64(seed);
        let motif: Vec<u8> = (0..MOTIF).map(|_| base(&mut rng)).collect();
        let mut planted = Self {
            sequences: Vec::new(),
            places: Vec::new(),
        };
        for _ in 0..sequences {
            let mut sequence: Vec<u8> = (0..letters).map(|_| base(&mut rng)).collect();
            let place = rng.random_range(0..=letters - MOTIF);
            for (letter, own) in sequence[place..].iter_mut().zip(&motif) {
                *letter = match rng.random_bool(MUTATED) {
                    true => base(&mut rng),
                    false => *own,
                };
            }
            planted.sequences.push(sequence);
            planted.places.push(place);
        }
        planted
    }

    /// The sequences for glam2: `s0`, `s1` and so on.
    pub fn fasta(&self) -> String {
        let mut text = String::new();
        for (number, sequence) in self.sequences.iter().enumerate() {
            text.push_str(&format!(
                ">s{number}\n{}\n",
                String::from_utf8_lossy(sequence)
            ));
        }
        text
    }

    /// In how many of the sequences an alignment covers half of the motif.
    pub fn found(&self, alignment: &Alignment) -> usize {
        let covers = |(name, first, last): &&(String, usize, usize)| {
            let number = name
                .strip_prefix('s')
                .and_then(|text| text.parse::<usize>().ok());
            let Some(place) = number.and_then(|number| self.places.get(number)) else {
                return false;
            };
            let begin = (*place).max(first.saturating_sub(1));
            let end = (*last).min(place + MOTIF);
            end.saturating_sub(begin) >= COVERED
        };
        alignment.rows.iter().filter(covers).count()
    }
}

fn base(rng: &mut StdRng) -> u8 {
    *BASES.choose(rng).expect("there are four")
}

impl Alignment {
    /// All alignments of an output, the best first, as glam2 writes them: one for each run.
    pub fn all(output: &str) -> Result<Vec<Self>> {
        let mut all: Vec<Self> = Vec::new();
        let mut in_rows = false;
        for line in output.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                ["Score:", score, "Columns:", ..] => {
                    let score = score.parse().with_context(|| format!("no score: {line}"))?;
                    let rows = Vec::new();
                    all.push(Self { score, rows });
                }
                // The line above the letters marks the columns; where letters are inserted it has dots.
                [marks]
                    if marks.contains('*') && marks.bytes().all(|mark| b"*.".contains(&mark)) =>
                {
                    in_rows = true;
                }
                [name, first, _, last, "+" | "-", _] if in_rows => {
                    let alignment = all.last_mut().context("letters without a score")?;
                    let row = (|| Some((first.parse().ok()?, last.parse().ok()?)))();
                    let (first, last) = row.with_context(|| format!("no places: {line}"))?;
                    alignment.rows.push(((*name).to_owned(), first, last));
                }
                _ => in_rows = false,
            }
        }
        if all.iter().any(|alignment| alignment.rows.is_empty()) {
            bail!("the output ends within an alignment");
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_sequences_and_another_seed_others() {
        let one = Planted::new(7, 12, 60);
        assert_eq!(one, Planted::new(7, 12, 60));
        assert_ne!(one, Planted::new(8, 12, 60));
        assert_eq!(one.fasta().lines().count(), 24);
        assert!(
            one.fasta()
                .lines()
                .skip(1)
                .step_by(2)
                .all(|line| line.len() == 60)
        );
    }

    #[test]
    fn alignments_are_read_and_held_against_what_was_planted() {
        let mut planted = Planted::new(7, 3, 60);
        planted.places = vec![10, 0, 40];
        // The first is there, the second lies beside it, the third is covered in part, and one is nobody's.
        let output = "GLAM2: Gapped Local Alignment of Motifs\nVersion 1064\n\n\
                      Score: 297.790  Columns: 20  Sequences: 4\n\n                 *****.*****\n\
                      s0            11 aaga.tttt 30 + 27.6\ns1            31 cagattttc 50 + 30.5\n\
                      s2            46 ctgattttc 60 - 27.6\ns9             1 ctgattttc 20 + 27.6\n\n\
                      \x20                cagattt\n\n a  c  g  t Del Ins Score\n 1 11  0  0   0      13.2\n\n\
                      Score: 12.5  Columns: 7  Sequences: 1\n\n        *******\ns1  1 aaaaaaa 20 + 1.0\n\n";
        let all = Alignment::all(output).unwrap();
        assert_eq!(
            all.iter().map(|one| one.score).collect::<Vec<_>>(),
            [297.79, 12.5]
        );
        assert_eq!(all[0].rows.len(), 4);
        assert_eq!((planted.found(&all[0]), planted.found(&all[1])), (2, 1));
        assert!(Alignment::all("").unwrap().is_empty());
        let cut = output.split("s1  1").next().unwrap();
        assert!(Alignment::all(cut).is_err(), "it ends too early");
    }
}
