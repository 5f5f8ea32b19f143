"""Made-up names of streets, shops and places."""

from __future__ import annotations

from crossview.synthetic.plan import Dice

_STEMS = (
    "Abbey Acorn Alder Almond Amber Anchor Apple Ash Aspen Badger Baker's Barley Beacon Beech "
    "Bell Birch Bishop Blackbird Bramble Brewer Bridge Canal Candle Carter Castle Cedar Chapel "
    "Cherry Chestnut Clover Cooper Copper Coral Crane Dairy Dove Dyers' Eagle Elder Elm Falcon "
    "Farrier Fern Ferry Finch Flax Forge Fountain Fox Foundry Garden Glover Granary Hammer "
    "Harbour Hawthorn Hazel Heron Holly Honey Hop Ivy Jasmine Juniper Kestrel Kiln Kingfisher "
    "Lark Laurel Lavender Lily Linden Lock Loom Magnolia Maple Market Mason Meadow Mill Mint Moss "
    "Mulberry Nettle Nightingale Oak Olive Orchard Osprey Otter Paper Pear Pepper Pine Plum "
    "Poplar Potter Quarry Quince Raven River Robin Rope Rose Rowan Saddler Saffron Sage Salt "
    "School Silver Smithy Sorrel Sparrow Spring Starling Station Swallow Swan Tailor Tanner "
    "Thistle Thyme Tile Tower Turner Valley Vine Violet Walnut Weaver Well Wheel Willow Windmill "
    "Wool Wren Yarrow Yew"
)
_ENDINGS = {
    "secondary": ("Road", "Avenue", "Boulevard"),
    "tertiary": ("Road", "Street", "Avenue"),
    "residential": ("Street", "Street", "Street", "Grove", "Way", "Close"),
    "living_street": ("Lane", "Yard", "Row"),
    "pedestrian": ("Lane", "Walk", "Arcade"),
}
_PEOPLE = "Anna Bruno Clara David Edda Frida Georg Hanna Ida Jonas Karla Lena Moritz Nora Otto"


class Names:
    """Names that are given out once."""

    def __init__(self, dice: Dice) -> None:
        self._dice = dice
        self._stems, self._people = _STEMS.split(), _PEOPLE.split()
        self._given: set[str] = set()

    def street(self, highway: str) -> str:
        """A name for a street of a kind; "" where such streets have none."""
        endings = _ENDINGS.get(highway, ())
        if not endings:
            return ""
        name = f"{self._dice.pick(self._stems)} {self._dice.pick(endings)}"
        for prefix in ("", "Upper ", "Lower ", "New ", "Old ", "Little ", "East ", "West "):
            if prefix + name not in self._given:
                self._given.add(prefix + name)
                return prefix + name
        return name

    def of_someone(self, what: str) -> str:
        """A shop's or a school's name."""
        return f"{self._dice.pick(self._people)}'s {what}"

    def of_something(self, what: str) -> str:
        """A park's, a square's or a stop's name."""
        return f"{self._dice.pick(self._stems)} {what}"
