//! Random trees of species, DNA that evolved along them, and which species a tree keeps together.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail};
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{RngExt, SeedableRng};

const BASES: &[u8; 4] = b"ACGT";

/// Changes a site and branch: enough that no branch is in doubt, too few to hide each other.
const BRANCH: std::ops::Range<f64> = 0.05..0.2;

/// Species with their DNA, the tree along which it evolved, and another to begin a search with.
#[derive(Debug, Clone)]
pub struct Phylogeny {
    /// In PHYLIP's format.
    pub alignment: String,
    /// In Newick's format, as are all trees here.
    pub truth: String,
    /// One without any of the truth in it but by chance.
    pub start: String,
}

enum Tree {
    Species(String),
    Fork(Vec<(Tree, f64)>),
}

impl Phylogeny {
    /// The same for the same seed.
    pub fn new(seed: u64, species: usize, sites: usize) -> Self {
        assert!(species > 3, "fewer species have only one tree");
        let mut rng = StdRng::seed_from_u64(seed);
        let names: Vec<String> = (0..species).map(|number| format!("t{number}")).collect();
        let truth = random(&mut rng, &names);
        let ancestor: Vec<u8> = (0..sites).map(|_| base(&mut rng)).collect();
        let mut sequences = Vec::new();
        evolve(&truth, &ancestor, &mut rng, &mut sequences);
        sequences.sort();
        let mut alignment = format!("{species} {sites}\n");
        for (name, sequence) in sequences {
            alignment.push_str(&format!("{name} {}\n", String::from_utf8_lossy(&sequence)));
        }
        let mut order = names;
        order.shuffle(&mut rng);
        Self {
            alignment,
            truth: format!("{};\n", newick(&truth)),
            start: format!("{};\n", caterpillar(&order)),
        }
    }
}

/// Joins two at random until three are left.
fn random(rng: &mut StdRng, names: &[String]) -> Tree {
    let mut trees: Vec<Tree> = names.iter().cloned().map(Tree::Species).collect();
    let branch = |tree: Tree, rng: &mut StdRng| (tree, rng.random_range(BRANCH));
    while trees.len() > 3 {
        let one = trees.swap_remove(rng.random_range(0..trees.len()));
        let other = trees.swap_remove(rng.random_range(0..trees.len()));
        trees.push(Tree::Fork(vec![branch(one, rng), branch(other, rng)]));
    }
    Tree::Fork(trees.into_iter().map(|tree| branch(tree, rng)).collect())
}

/// By Jukes and Cantor: each change leads to any of the three other bases alike.
fn evolve(tree: &Tree, dna: &[u8], rng: &mut StdRng, sequences: &mut Vec<(String, Vec<u8>)>) {
    match tree {
        Tree::Species(name) => sequences.push((name.clone(), dna.to_vec())),
        Tree::Fork(branches) => {
            for (child, length) in branches {
                let changed = 0.75 * (1.0 - (-4.0 / 3.0 * length).exp());
                let own: Vec<u8> = dna
                    .iter()
                    .map(|letter| match rng.random_bool(changed) {
                        true => another(*letter, rng),
                        false => *letter,
                    })
                    .collect();
                evolve(child, &own, rng, sequences);
            }
        }
    }
}

fn base(rng: &mut StdRng) -> u8 {
    *BASES.choose(rng).expect("there are four")
}

fn another(letter: u8, rng: &mut StdRng) -> u8 {
    loop {
        let other = base(rng);
        if other != letter {
            return other;
        }
    }
}

fn newick(tree: &Tree) -> String {
    match tree {
        Tree::Species(name) => name.clone(),
        Tree::Fork(branches) => {
            let all: Vec<String> = branches
                .iter()
                .map(|(child, length)| format!("{}:{length:.6}", newick(child)))
                .collect();
            format!("({})", all.join(","))
        }
    }
}

/// One species after the other along a line.
fn caterpillar(names: &[String]) -> String {
    let (ends, rest) = names.split_at(2);
    let mut tree = ends.join(",");
    for (number, name) in rest.iter().enumerate() {
        tree = match number + 1 == rest.len() {
            // An unrooted tree begins with three.
            true => format!("({tree},{name})"),
            false => format!("({tree}),{name}"),
        };
    }
    tree
}

/// The groups that an unrooted tree keeps apart, each by the side without the first of all species. Two
/// trees with the same groups have the same shape.
pub fn groups(newick: &str) -> Result<BTreeSet<BTreeSet<String>>> {
    let mut open: Vec<BTreeSet<String>> = Vec::new();
    let mut closed: Vec<BTreeSet<String>> = Vec::new();
    let mut rest = newick.trim();
    while let Some(letter) = rest.chars().next() {
        match letter {
            '(' => open.push(BTreeSet::new()),
            ')' => {
                let group = open.pop().context("a bracket closes that was not open")?;
                if let Some(outer) = open.last_mut() {
                    outer.extend(group.iter().cloned());
                }
                closed.push(group);
            }
            ',' | ';' => {}
            _ => {
                let end = rest.find(['(', ')', ',', ';']).unwrap_or(rest.len());
                let name = rest[..end].split(':').next().unwrap_or_default().trim();
                // Behind a bracket stands only a length.
                if !name.is_empty() {
                    let group = open.last_mut().context("a species outside of brackets")?;
                    group.insert(name.to_owned());
                }
                rest = &rest[end..];
                continue;
            }
        }
        rest = &rest[letter.len_utf8()..];
    }
    if !open.is_empty() {
        bail!("the tree has an open bracket");
    }
    let all = closed.pop().context("there is no tree")?;
    let first = all.first().context("the tree has no species")?;
    let sides = closed.into_iter().map(|group| match group.contains(first) {
        true => all.difference(&group).cloned().collect(),
        false => group,
    });
    Ok(sides
        .filter(|side: &BTreeSet<String>| side.len() > 1)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_species_and_another_seed_others() {
        let one = Phylogeny::new(5, 6, 40);
        let same = Phylogeny::new(5, 6, 40);
        assert_eq!((&one.alignment, &one.start), (&same.alignment, &same.start));
        assert_ne!(one.alignment, Phylogeny::new(6, 6, 40).alignment);
        let lines: Vec<&str> = one.alignment.lines().collect();
        assert_eq!((lines.len(), lines[0]), (7, "6 40"));
        assert!(lines[1..].iter().all(|line| line.len() == "t0 ".len() + 40));
        // As many groups as an unrooted tree of so many can have.
        assert_eq!(groups(&one.truth).unwrap().len(), 3);
        assert_eq!(groups(&one.start).unwrap().len(), 3);
    }

    #[test]
    fn trees_of_one_shape_have_the_same_groups() {
        let tree = groups("((a:0.1,b:0.2):0.3,(c,d):1e-6,(e,f));").unwrap();
        assert_eq!(tree, groups("(((c,d),(f,e)):2.5,b,a:0.7):0.0;").unwrap());
        assert_ne!(tree, groups("((a,c),(b,d),(e,f));").unwrap());
        for wrong in ["", "a;", "((a,b);", "(a,b));", "()"] {
            assert!(groups(wrong).is_err(), "{wrong}");
        }
    }
}
