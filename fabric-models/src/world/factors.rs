//! What there is to see: the thing, how it is painted, where it lies, and what lies behind it.

use super::factor::factor;

factor! {
    /// What the image shows.
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
        /// A ring through which one sees the background.
        Ring = "ring",
        /// A crescent.
        Moon = "moon",
        /// A flower with six petals.
        Flower = "flower",
        /// A house with roof, chimney and door.
        House = "house",
        /// A fish that swims to the left.
        Fish = "fish",
        /// A face with an [`Identity`](super::Identity) of its own.
        Face = "face",
    }
}

factor! {
    /// The colour of the thing; of a face, the colour of its hair.
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
    /// How the thing is painted, with a second shade of its colour; a face is always plain.
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
    /// How large the thing is.
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
    /// Where the thing lies.
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
    /// The colour of the background, never called like the colour of the thing before it.
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
    /// How the background is painted, with a second shade close to the first.
    BackgroundPattern, "background pattern", {
        /// One shade.
        Plain = "plain",
        /// Upright stripes.
        Striped = "striped",
        /// Dots.
        Dotted = "dotted",
    }
}
