"""What the shops that speak SQL say: the same in Flask and in FastAPI."""

PRODUCTS = "SELECT id, name, price::float8, stock FROM products ORDER BY id"

RESERVE = """
    UPDATE products SET stock = stock - %(quantity)s
    WHERE id = %(product)s AND stock >= %(quantity)s
    RETURNING price * %(quantity)s AS total
"""

ORDER = """
    INSERT INTO orders (product_id, quantity, total, state)
    VALUES (%s, %s, %s, 'reserved') RETURNING id
"""

PAID = "UPDATE orders SET state = 'paid', receipt = %s WHERE id = %s"

ONE_ORDER = """
    SELECT id, product_id AS product, quantity, total::float8, state, receipt
    FROM orders WHERE id = %s
"""

ALL_ORDERS = "SELECT id, product_id, quantity, total, state FROM orders ORDER BY id"
