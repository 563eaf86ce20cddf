-- The one schema of all three shops.

CREATE TABLE products (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL,
    price numeric(10, 2) NOT NULL,
    stocked int NOT NULL, -- how many there were at first
    stock int NOT NULL CHECK (stock >= 0)
);

CREATE TABLE orders (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    product_id int NOT NULL REFERENCES products,
    quantity int NOT NULL CHECK (quantity > 0),
    total numeric(10, 2) NOT NULL,
    state text NOT NULL CHECK (state IN ('reserved', 'paid')),
    receipt text,
    created_at timestamptz NOT NULL DEFAULT now()
);

INSERT INTO products (name, price, stocked, stock) VALUES
    ('lamp', 39.90, 100000, 100000),
    ('chair', 120.00, 100000, 100000),
    ('table', 349.00, 100000, 100000),
    ('the last vase', 17.50, 5, 5);
