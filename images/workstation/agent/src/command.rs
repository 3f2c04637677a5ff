//! Other programs, run to their end within a time.

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// What is read of a program's output and of its errors.
const OUTPUT_BYTES_MAX: u64 = 1 << 20;

/// How often it is looked whether a program has ended.
const LOOK: Duration = Duration::from_millis(20);

/// For what asks nobody else.
pub const LOCAL: Duration = Duration::from_secs(20);

/// For what asks Slurm's controller.
pub const SLURM: Duration = Duration::from_secs(30);

/// Runs a program with these arguments, none of which may be a secret; its output.
///
/// # Errors
/// It cannot be started, fails, or does not end in time: then it is killed.
pub fn run(program: &str, arguments: &[&str], limit: Duration) -> Result<String> {
    run_command(Command::new(program).args(arguments), limit)
}

/// The same for a command that is prepared in another way.
pub fn run_command(command: &mut Command, limit: Duration) -> Result<String> {
    let shown = shown(command);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {shown}"))?;
    let reader = |stream: Option<Box<dyn Read + Send>>| {
        std::thread::spawn(move || {
            let mut text = Vec::new();
            if let Some(stream) = stream {
                // What was read before an error counts.
                let _ = stream.take(OUTPUT_BYTES_MAX).read_to_end(&mut text);
            }
            String::from_utf8_lossy(&text).into_owned()
        })
    };
    let output = reader(child.stdout.take().map(|stream| Box::new(stream) as _));
    let errors = reader(child.stderr.take().map(|stream| Box::new(stream) as _));
    let deadline = Instant::now() + limit;
    let status = loop {
        if let Some(status) = child.try_wait().with_context(|| shown.clone())? {
            break status;
        }
        if Instant::now() >= deadline {
            // A mount whose server is away cannot be killed; it is left to end by itself.
            let _ = child.kill();
            std::thread::spawn(move || child.wait());
            bail!("{shown} did not end within {limit:?}");
        }
        std::thread::sleep(LOOK);
    };
    let (output, errors) = (output.join(), errors.join());
    if !status.success() {
        let errors = errors.unwrap_or_default();
        let last = errors.lines().last().unwrap_or_default().trim().to_owned();
        bail!("{shown} failed ({status}): {last}");
    }
    Ok(output.unwrap_or_default())
}

/// Program and first arguments.
fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.take(4).map(|word| word.to_string_lossy()).collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_failure_and_delay_are_told_apart() {
        assert_eq!(run("echo", &["x"], LOCAL).unwrap(), "x\n");
        let failed = run("sh", &["-c", "echo no >&2; exit 3"], LOCAL).unwrap_err();
        let failed = failed.to_string();
        assert!(failed.contains("no") && failed.contains('3'), "{failed}");
        let late = run("sleep", &["600"], Duration::from_millis(50)).unwrap_err();
        assert!(late.to_string().contains("did not end"), "{late}");
        assert!(run("/nonexistent", &[], LOCAL).is_err());
    }
}
