"""Test the questions of the command on a terminal."""

from support.programs.command import terminal

AWAY = ("--master", "127.0.0.1:1")


def test_a_key_is_not_shown() -> None:
    with terminal("login", *AWAY) as shown:
        shown.until(lambda text: text.endswith("API key: "))
        assert not shown.shows_typing()
        shown.press(b"sl_not_to_be_seen\n")
        assert shown.ended() == 4
        assert "sl_not" not in shown.shown
        assert shown.shows_typing()


def test_ctrl_c_at_a_question_ends_the_command_and_leaves_the_terminal_as_it_was() -> None:
    with terminal("login", *AWAY) as shown:
        shown.until(lambda text: text.endswith("API key: "))
        shown.press(b"\x03")
        assert shown.ended() == 130
        assert "Traceback" not in shown.shown
        assert shown.shows_typing()
