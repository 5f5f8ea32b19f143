"""Points of interest on ground floors."""

from __future__ import annotations

from crossview.synthetic.names import Names
from crossview.synthetic.plan import Dice, Tags

SHOP_TAGS: tuple[tuple[Tags, str], ...] = (
    ({"amenity": "bank"}, "Bank"),
    ({"amenity": "cafe"}, "Café"),
    ({"amenity": "cafe"}, "Coffee House"),
    ({"amenity": "pharmacy"}, "Pharmacy"),
    ({"amenity": "pub"}, "Arms"),
    ({"amenity": "bar"}, "Bar"),
    ({"amenity": "restaurant"}, "Kitchen"),
    ({"amenity": "restaurant", "cuisine": "italian"}, "Trattoria"),
    ({"amenity": "fast_food"}, "Snacks"),
    ({"amenity": "dentist"}, "Dental Practice"),
    ({"amenity": "post_office"}, ""),
    ({"shop": "bakery"}, "Bakery"),
    ({"shop": "bicycle"}, "Bicycles"),
    ({"shop": "books"}, "Books"),
    ({"shop": "butcher"}, "Butchery"),
    ({"shop": "clothes"}, "Clothes"),
    ({"shop": "convenience"}, "Corner Shop"),
    ({"shop": "florist"}, "Flowers"),
    ({"shop": "hairdresser"}, "Hair"),
    ({"shop": "kiosk"}, ""),
    ({"shop": "optician"}, "Optics"),
    ({"shop": "supermarket"}, "Market"),
)


def shop(dice: Dice, names: Names) -> dict[str, str]:
    """The tags of a shop, a café or the like; most have a name."""
    tags, what = dice.pick(SHOP_TAGS)
    named = {"name": names.of_someone(what)} if what and dice.chance(0.85) else {}
    return {**tags, **named}
