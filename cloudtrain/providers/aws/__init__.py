"""EC2 by boto3: the only package that knows AWS. Partitions aws and aws-cn."""
