"""Replicates: does a front hold with fresh seeds?"""
