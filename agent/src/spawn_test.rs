use super::*;
use std::io::Read;
use std::os::fd::AsFd;

fn c(text: &str) -> CString {
    CString::new(text).expect("no zero byte")
}

/// Run `argv` and return what it wrote and its exit status.
fn run(argv: &[&str], cwd: &str) -> Result<(String, Option<i32>), (Step, Errno)> {
    let null = std::fs::File::open("/dev/null").expect("/dev/null");
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).expect("a pipe");
    let argv: Vec<CString> = argv.iter().map(|word| c(word)).collect();
    let (paths, env, cwd) = (candidates(&argv[0], b"/nowhere:/usr/bin:/bin"), [c("A=1")], c(cwd));
    let launch = Launch {
        candidates: &paths,
        argv: &argv,
        env: &env,
        cwd: &cwd,
        user: None,
        stdio: [null.as_fd(), write.as_fd(), write.as_fd()],
        terminal: false,
        cgroup: None,
        filter: None,
        dies_with_us: true,
    };
    let pid = Launcher::new().expect("a stack").start(&launch)?;
    drop(write);
    let mut text = String::new();
    std::fs::File::from(read).read_to_string(&mut text).expect("text");
    let pid = rustix::process::Pid::from_raw(pid).expect("a process id");
    let (_, status) = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty())
        .expect("our child")
        .expect("it has ended");
    Ok((text, status.exit_status()))
}

#[test]
fn runs_along_the_path_with_environment_and_directory() {
    assert_eq!(run(&["sh", "-c", "echo $A; pwd; exit 3"], "/usr"), Ok(("1\n/usr\n".into(), Some(3))));
}

#[test]
fn a_session_of_its_own_with_no_signal_blocked() {
    // Of the programs the shell runs: itself it blocks signals while it starts them.
    let (text, _) = run(
        &[
            "sh",
            "-c",
            "grep SigBlk /proc/self/status; grep SigIgn /proc/self/status; cut -d' ' -f6 /proc/self/stat; echo $$",
        ],
        "/",
    )
    .expect("a shell");
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].ends_with("0000000000000000"), "{text}");
    // Rust programs ignore SIGPIPE (13); what they start must not.
    let ignored = lines[1].rsplit('\t').next().and_then(|mask| u64::from_str_radix(mask, 16).ok());
    assert_eq!(ignored.map(|mask| mask & 1 << 12), Some(0), "{text}");
    assert_eq!(lines[2], lines[3]);
}

#[test]
fn says_which_step_failed() {
    assert_eq!(run(&["no-such-program"], "/"), Err((Step::Execute, Errno::NOENT)));
    assert_eq!(run(&["/etc/passwd"], "/"), Err((Step::Execute, Errno::ACCESS)));
    assert_eq!(run(&["true"], "/nowhere"), Err((Step::Directory, Errno::NOENT)));
}

#[test]
fn many_in_a_row_leave_nothing_behind() {
    let open = || std::fs::read_dir("/proc/self/fd").expect("/proc").count();
    run(&["true"], "/").expect("a program");
    let before = open();
    for _ in 0..50 {
        assert_eq!(run(&["true"], "/"), Ok((String::new(), Some(0))));
        assert!(run(&["no-such-program"], "/").is_err());
    }
    // Other tests of this process open and close files meanwhile.
    assert!(open() < before + 40);
}
