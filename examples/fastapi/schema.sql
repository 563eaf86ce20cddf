CREATE TABLE sensors (name text PRIMARY KEY, readings int NOT NULL DEFAULT 0);
CREATE TABLE readings (sensor text REFERENCES sensors, value float NOT NULL);
