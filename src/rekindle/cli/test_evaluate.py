import pytest

from rekindle.cli.evaluate import numbers
from rekindle.core.errors import ConfigError


@pytest.mark.parametrize(("text", "found"), [("5", [5]), ("1,2,64", [1, 2, 64]), (" 3 , 1", [3, 1]), ("007", [7])])
def test_numbers_with_commas_between(text, found):
    assert numbers(text) == found


@pytest.mark.parametrize(
    "text", ["", ",", "1,", "0", "65", "1.5", "-1", "٣", "²", "1_0", "1,2,1", "9" * 5000, "1," * 9000 + "1", "a\nb"]
)
def test_what_is_no_list_of_numbers_is_refused(text):
    with pytest.raises(
        ConfigError, match="--trials takes different numbers from 1 to 64 with commas between"
    ) as refused:
        numbers(text)
    assert len(str(refused.value)) < 200 and str(refused.value).isprintable()
