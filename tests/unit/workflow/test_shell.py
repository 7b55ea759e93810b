import pytest

from firebrick.workflow.shell import ShellError, find_shell


@pytest.mark.parametrize(
    ("name", "argv", "extension"),
    [
        (None, ("bash", "-e", "/t/s"), ".sh"),
        ("", ("bash", "-e", "/t/s"), ".sh"),
        ("bash", ("bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "/t/s"), ".sh"),
        ("sh", ("sh", "-e", "/t/s"), ".sh"),
        ("python", ("python", "/t/s"), ".py"),
        ("pwsh", ("pwsh", "-command", ". '/t/s'"), ".ps1"),
        ("bash -x {0}", ("bash", "-x", "/t/s"), ".sh"),
        ("/usr/bin/bash -l {0}", ("/usr/bin/bash", "-l", "/t/s"), ".sh"),
        ("perl {0}", ("perl", "/t/s"), ""),
        ("run 'with {0} inside' --last", ("run", "with /t/s inside", "--last"), ""),
    ],
)
def test_invocation(name, argv, extension):
    shell = find_shell(name)
    assert shell.argv("/t/s") == argv
    assert shell.extension == extension
    assert shell.program == argv[0]


def test_only_the_default_falls_back():
    assert find_shell(None).fallback.argv("s") == ("sh", "-e", "s")
    assert find_shell("bash").fallback is None


@pytest.mark.parametrize("name", ["fish", "cmd", "powershell", "Bash", "bash -e", "zsh '{0}"])
def test_no_shell(name):
    with pytest.raises(
        ShellError, match="^Invalid shell option. (Shell must be a valid built-in|.* needs Windows)"
    ) as raised:
        find_shell(name)
    assert raised.value.hint


def test_script():
    assert find_shell("bash").script("echo é\r\n") == "echo é\r\n".encode()
    text = find_shell("pwsh").script("Get-Item x").decode()
    assert text.startswith("$ErrorActionPreference = 'stop'\nGet-Item x\n")
    assert "exit $LASTEXITCODE" in text
