//! Factors of all scenes: the thing, its texture, size and position, and the background.

use super::factor::factor;

factor! {
    /// Kind of the thing.
    Kind, "kind", {
        /// A disc.
        Circle = "circle",
        /// A square.
        Square = "square",
        /// A triangle that stands on its base.
        Triangle = "triangle",
        /// A star with five points.
        Star = "star",
        /// A heart.
        Heart = "heart",
        /// A cross with four equal arms.
        Cross = "cross",
        /// A ring with a transparent centre.
        Ring = "ring",
        /// A crescent.
        Moon = "moon",
        /// A flower with six petals.
        Flower = "flower",
        /// A house with roof, chimney and door.
        House = "house",
        /// A fish that swims to the left.
        Fish = "fish",
        /// A face with an [`Identity`](super::Identity).
        Face = "face",
    }
}

factor! {
    /// Colour of the thing; for a face, of its hair.
    Colour, "colour", {
        /// Red.
        Red = "red",
        /// Orange.
        Orange = "orange",
        /// Yellow.
        Yellow = "yellow",
        /// Green.
        Green = "green",
        /// Blue.
        Blue = "blue",
        /// Purple.
        Purple = "purple",
        /// Pink.
        Pink = "pink",
        /// White.
        White = "white",
        /// Black.
        Black = "black",
    }
}

factor! {
    /// Texture of the thing, in a second shade of its colour; faces are always plain.
    Texture, "texture", {
        /// One shade.
        Plain = "plain",
        /// Slanting stripes.
        Striped = "striped",
        /// Dots.
        Dotted = "dotted",
        /// A chequerboard.
        Checked = "checked",
        /// A thick outline.
        Outlined = "outlined",
    }
}

factor! {
    /// Size of the thing.
    Size, "size", {
        /// A radius of 12 pixels in 64.
        Small = "small",
        /// A radius of 16 pixels in 64.
        Medium = "medium",
        /// A radius of 21 pixels in 64.
        Large = "large",
    }
}

factor! {
    /// Position of the thing.
    Position, "position", {
        /// Top left.
        TopLeft = "top left",
        /// Top.
        Top = "top",
        /// Top right.
        TopRight = "top right",
        /// Left.
        Left = "left",
        /// Center.
        Center = "center",
        /// Right.
        Right = "right",
        /// Bottom left.
        BottomLeft = "bottom left",
        /// Bottom.
        Bottom = "bottom",
        /// Bottom right.
        BottomRight = "bottom right",
    }
}

factor! {
    /// Colour of the background; its name always differs from that of the thing's colour.
    BackgroundColour, "background colour", {
        /// Red.
        Red = "red",
        /// Yellow.
        Yellow = "yellow",
        /// Green.
        Green = "green",
        /// Blue.
        Blue = "blue",
        /// Pink.
        Pink = "pink",
        /// White.
        White = "white",
        /// Black.
        Black = "black",
        /// Gray.
        Gray = "gray",
    }
}

factor! {
    /// Pattern of the background, in a second shade close to its colour.
    BackgroundPattern, "background pattern", {
        /// One shade.
        Plain = "plain",
        /// Vertical stripes.
        Striped = "striped",
        /// Dots.
        Dotted = "dotted",
    }
}
